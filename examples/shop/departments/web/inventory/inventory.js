// The page of Inventory: how levels are written, and refilling.
import { connect, formats } from "./afresh/afresh.js";
import { follow } from "./shared/department.js";

// Rather none than two, when the department is restarted just then.
const inventory = connect("rpc/ws").service("Inventory", { methods: { refill: { resend: false } } });
const KINDS = { reserved: "Reserved", shipped: "Shipped", refilled: "Refilled" };
const stock = document.querySelector("#stock");
let refilled;

Object.assign(formats, {
  free: ({ there, reserved }) => Math.max(0, there - reserved),
  lowness: (isLow) => (isLow ? "low" : ""),
  level: (isLow) => (isLow ? "Running low" : "Enough"),
  moved: (kind) => KINDS[kind],
  order: (id) => (id == null ? "" : ` for order #${id}`),
  signed: ({ kind, pieces }) => (kind === "refilled" ? `+${pieces}` : `\u2212${pieces}`),
});

follow("#stock", (shelves) => {
  stock.style.setProperty("--most", Math.max(1, ...shelves.map((each) => each.there)));
  // The row that was refilled is another one by now.
  if (document.activeElement === document.body && refilled)
    stock.querySelector(`[data-refill="${refilled}"]`)?.focus();
  refilled = undefined;
});

/** Say for a few seconds what went wrong. */
function complain(text) {
  const toast = document.createElement("div");
  toast.className = "toast bad";
  toast.textContent = text;
  document.querySelector(".toasts").append(toast);
  setTimeout(() => toast.remove(), 5000);
}

stock.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-refill]");
  if (!button) return;
  refilled = button.dataset.refill;
  button.disabled = true;
  try {
    await inventory.refill({ product_id: refilled, pieces: 20 });
  } catch {
    button.disabled = false;
    complain("The connection was lost, please look whether it was refilled");
  }
});
