// The plain page of the shop: what its templates in index.html leave to code.
import { connect, formats } from "./afresh/afresh.js";

const USERS = { alice: "Alice", bob: "Bob", carol: "Carol" };
const wanted = new URLSearchParams(location.search).get("user");
const user = Object.hasOwn(USERS, wanted) ? wanted : "alice";

const hub = connect("rpc/ws", { delay: 100 });
const [baskets, orders] = ["Baskets", "Orders"].map((name) => hub.service(name));
// Rather no delivery than two, when the server is replaced just then.
const stock = hub.service("Stock", { methods: { deliver: { resend: false } } });
const find = (selector) => document.querySelector(selector);

// ---- how templates write values

const euros = (cents) => `€${(cents / 100).toFixed(2).replace(/\B(?=(\d{3})+\.)/g, ",")}`;
const sum = (lines) => lines.reduce((cents, { price, quantity }) => cents + price * quantity, 0);
const date = new Intl.DateTimeFormat("en-GB", {
  day: "2-digit",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});

Object.assign(formats, {
  euros,
  amount: (line) => euros(sum([line])),
  sum: (lines) => euros(sum(lines)),
  when: (time) => date.format(new Date(time)),
  stock: (left) => (left > 5 ? `${left} in stock` : left ? `Only ${left} left` : "Sold out"),
  named: (status) => status[0].toUpperCase() + status.slice(1),
  scarcity: (left) => (left > 5 ? "" : left ? "low" : "none"),
});

// ---- what the visitor does

/** Say something for a few seconds. */
function toast(text, kind) {
  const element = document.createElement("div");
  element.className = `toast ${kind}`;
  element.textContent = text;
  find(".toasts").append(element);
  setTimeout(() => element.remove(), 5000);
}

/** Await a call and return its result, or say what failed, in words for the customer. */
async function act(call) {
  try {
    return await call;
  } catch ({ typeName, message }) {
    const words = {
      ShopError: message, // is meant for customers
      DisconnectedError: "The connection was lost, please look whether it was done",
    };
    toast(words[typeName] ?? "Something went wrong, please try again", "bad");
  }
}

const put = (product, quantity) =>
  act(baskets.put({ user_id: user, product_id: product, quantity }));

/** Takes a product into the basket, and more or less of it. */
class Stepper extends HTMLElement {
  connectedCallback() {
    this.replaceChildren(find("#stepper").content.cloneNode(true));
    const [product, name] = ["product", "name"].map((each) => this.getAttribute(each));
    const [add, less, more] = this.querySelectorAll("button");
    add.setAttribute("aria-label", `Add ${name}`);
    less.setAttribute("aria-label", `One ${name} less`);
    more.setAttribute("aria-label", `One ${name} more`);
    let [quantity, left, isBusy] = [0, 0, false];
    const show = () => {
      add.hidden = quantity > 0;
      this.querySelector(".stepper").hidden = quantity === 0;
      this.querySelector("output").value = quantity;
      add.disabled = left === 0;
      more.disabled = quantity >= left;
    };
    const own = baskets.quantity(user, product);
    this.stops = [
      own.subscribe((value) => isBusy || show((quantity = value))),
      stock.left(product).subscribe((value) => show((left = value))),
    ];
    for (const button of [add, less, more])
      button.onclick = async () => {
        show((quantity += Number(button.dataset.step))); // what will be, if all goes well
        if (isBusy) return;
        isBusy = true;
        // One at a time, or an older number might be the last to arrive.
        for (let sent; sent !== quantity;) {
          sent = quantity;
          const result = await put(product, sent);
          if (result === undefined) sent = quantity = own.current?.value ?? 0; // it failed
        }
        isBusy = false;
        show();
        // By then, what somebody else did meanwhile is known as well.
        setTimeout(() => isBusy || show((quantity = own.current?.value ?? 0)), 1000);
      };
    show();
  }

  disconnectedCallback() {
    for (const stop of this.stops) stop();
  }
}
customElements.define("shop-stepper", Stepper);

find("#lines").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-remove]");
  if (button) put(button.dataset.remove, 0);
});

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  // By its id the shop recognizes an order that is sent again, after the connection was lost.
  const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
  button.disabled = true;
  const order = await act(orders.place({ user_id: user, note: form.note.value, id }));
  button.disabled = false;
  if (!order) return;
  form.reset();
  toast(`Thank you! Order #${order.id} is placed.`, "good");
});

find("#restock").onclick = () => act(stock.deliver({ pieces: 10 }));

// ---- what depends on more than one value

const amounts = new Map();
const updates = new Map();
setTimeout(() => document.body.classList.add("settled"), 2000); // what came until then is not news

document.addEventListener("afresh:update", ({ target, detail: { value } }) => {
  const section = target.matches(".card > afresh-value") && target.closest("section");
  if (section)
    updates.set(section, { count: (updates.get(section)?.count ?? 0) + 1, at: Date.now() });
  if (value === undefined) return; // an error: the old content stays
  if (target.id === "lines") {
    const pieces = value.reduce((count, { quantity }) => count + quantity, 0);
    find(".dock").hidden = pieces === 0;
    find("#pieces").textContent = pieces === 1 ? "1 item" : `${pieces} items`;
  } else if (target.matches(".short")) target.hidden = value >= target.dataset.wanted;
  else if (target.id === "total") find("#sales").classList.toggle("none", value.pieces === 0);
  else if (target.matches(".taken")) {
    const row = target.closest(".sold");
    row.hidden = value.pieces === 0;
    row.style.order = -value.amount;
    row.style.setProperty("--amount", value.amount);
    amounts.set(row, value.amount);
    find(".ranking").style.setProperty("--most", Math.max(1, ...amounts.values()));
  }
});

setInterval(() => {
  for (const [section, { count, at }] of updates) {
    const print = section.querySelector(".print");
    const age = Math.floor((Date.now() - at) / 1000);
    if (print) print.textContent = `updated ${age ? `${age} s ago` : "just now"} · v${count}`;
  }
}, 1000);

// ---- who it is

for (const [id, name] of Object.entries(USERS)) find("select").add(new Option(name, id));
find("select").value = user;
find("select").onchange = ({ target }) => location.assign(`?user=${target.value}`);
find(".avatar").textContent = USERS[user][0];
for (const each of document.querySelectorAll("[mine]"))
  each.setAttribute("args", JSON.stringify([user]));
