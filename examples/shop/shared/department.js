// What the pages of all departments need: how values are written, and what depends on the clock.
import { formats } from "../afresh/afresh.js";
import "./links.js";

const PRODUCTS = {
  espresso: ["coffee", 28],
  darjeeling: ["emoji_food_beverage", 152],
  croissant: ["bakery_dining", 40],
  cookies: ["cookie", 20],
  cake: ["cake", 340],
  eggs: ["egg", 48],
  honey: ["hive", 44],
  bouquet: ["local_florist", 300],
};

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const number = new Intl.NumberFormat("en-GB");

Object.assign(formats, {
  clock: (time) => clock.format(new Date(time)),
  count: (value) => number.format(value),
  euros: (cents) => `€${(cents / 100).toFixed(2).replace(/\B(?=(\d{3})+\.)/g, ",")}`,
  icon: (product) => PRODUCTS[product]?.[0] ?? "inventory_2",
  hue: (product) => PRODUCTS[product]?.[1] ?? 180,
});

// What came until then is not news.
setTimeout(() => document.body.classList.add("settled"), 2000);

/** Call `fn` with each new value of an element, errors aside. */
export function follow(selector, fn) {
  const element = document.querySelector(selector);
  element.addEventListener("afresh:update", ({ target, detail }) => {
    if (target === element && !detail.error) fn(detail.value, element);
  });
}
