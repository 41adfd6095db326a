// The page of Notification: what its templates leave to code.
import { formats } from "./afresh/afresh.js";
import "./shared/department.js";

const SIGNS = { placed: "mail", packed: "package", low: "warning" };
formats.sign = (kind) => SIGNS[kind] ?? "mail";
