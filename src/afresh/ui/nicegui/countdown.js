// The time that is left, in words: "in 4.2s", and then "right now". Counts in the browser, so that
// nothing has to be sent for it.
export default {
  template: "<span>{{ words }}</span>",
  props: {
    seconds: Number,
    turn: Number, // another number starts it anew, also with the same seconds
  },
  data: () => ({ words: "" }),
  mounted() {
    this.start();
  },
  unmounted() {
    clearInterval(this.timer);
  },
  watch: {
    turn() {
      this.start();
    },
  },
  methods: {
    start() {
      clearInterval(this.timer);
      this.end = performance.now() + 1000 * this.seconds;
      this.timer = setInterval(() => this.tick(), 100);
      this.tick();
    },
    tick() {
      const left = (this.end - performance.now()) / 1000;
      this.words = left < 0.05 ? "right now" : `in ${left.toFixed(1)}s`;
      if (left < 0.05) clearInterval(this.timer);
    },
  },
};
