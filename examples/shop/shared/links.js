// <site-links here="plain">: the links at the top of pages without Python, to all pages of the demo.
import { connect } from "../afresh/afresh.js";

const TITLES = {
  page: "Shop",
  plain: "Plain shop",
  flow: "Behind the shop",
  notification: "Notification",
  analytics: "Analytics",
  inventory: "Inventory",
};

// In a window of another page, that one has them.
if (self !== top) document.documentElement.classList.add("embedded");

class SiteLinks extends HTMLElement {
  connectedCallback() {
    const hub = connect(new URL("../rpc/ws", import.meta.url));
    this.stop = hub.call("Places", "all").subscribe((places) => this.show(places));
  }

  disconnectedCallback() {
    this.stop();
  }

  show(places) {
    const links = document.createElement("div");
    links.className = "wide";
    for (const [name, title] of Object.entries(TITLES)) {
      if (!places[name]) continue;
      const link = document.createElement("a");
      const { port, path } = places[name];
      link.href = `//${location.hostname}:${port}${path}`; // by the name that the visitor knows
      link.textContent = title;
      if (name === this.getAttribute("here")) link.setAttribute("aria-current", "page");
      links.append(link);
    }
    const nav = document.createElement("nav");
    nav.className = "places";
    nav.setAttribute("aria-label", "Pages of the demo");
    nav.append(links);
    this.replaceChildren(nav);
    const here = nav.querySelector("[aria-current]");
    if (here) links.scrollLeft = here.offsetLeft - 40; // phones show some of them at a time
  }
}
customElements.define("site-links", SiteLinks);
