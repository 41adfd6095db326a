// The page of Analytics: bars, as long as what they stand for is large.
import { formats } from "./afresh/afresh.js";
import { follow } from "./shared/department.js";

const MINUTES = 30;
const MINUTE = 60_000;
const chart = document.querySelector(".minutes");
const peak = document.querySelector("#peak");
let minutes = [];

formats.initial = (name) => name[0];

follow("#products", (products, element) => {
  element.style.setProperty("--most", Math.max(1, ...products.map((each) => each.amount)));
});

/** One column for each minute, those without orders as well; the last one is now. */
function draw() {
  const now = Math.floor(Date.now() / MINUTE);
  const orders = new Map();
  for (const { at, orders: count } of minutes) orders.set(Math.floor(new Date(at) / MINUTE), count);
  const counts = Array.from({ length: MINUTES }, (_, i) => orders.get(now - MINUTES + 1 + i) ?? 0);
  const most = Math.max(...counts);
  for (const [index, count] of counts.entries()) {
    const column = chart.children[index] ?? chart.appendChild(document.createElement("i"));
    column.style.setProperty("--share", count / Math.max(1, most));
    column.classList.toggle("some", count > 0);
  }
  const total = counts.reduce((sum, count) => sum + count, 0);
  peak.textContent = most ? `at most ${most} in a minute` : "no orders";
  chart.setAttribute("aria-label", `${total} orders in the last ${MINUTES} minutes, ${peak.textContent}`);
}

follow("#by-minute", (value) => {
  minutes = value;
  draw();
});
setInterval(draw, 5_000);
draw();
