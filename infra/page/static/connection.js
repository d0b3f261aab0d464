// The WebSocket: says what is shown, and connects again by itself.

const LONGEST_WAIT_MS = 5_000;
const SILENCE_MS = 4_000; // the server says something each second

export class Connection {
  /** `take` gets each message; what is shown is said again after each connect. */
  constructor(take) {
    this.take = take;
    this.lostAt = Date.now();
    this.connected = false;
    this.shown = null;
    this.waitMs = 250;
    this.heardAt = Date.now();
    this.open();
    setInterval(() => this.check(), 1_000);
  }

  show(shown) {
    this.shown = shown;
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ show: shown }));
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.socket = socket;
    this.heardAt = Date.now();
    socket.addEventListener("open", () => {
      if (this.shown) socket.send(JSON.stringify({ show: this.shown }));
    });
    socket.addEventListener("message", (event) => {
      if (socket !== this.socket) return;
      this.connected = true;
      this.waitMs = 250;
      this.heardAt = Date.now();
      this.take(JSON.parse(event.data));
    });
    socket.addEventListener("close", () => {
      if (socket === this.socket) this.lose();
    });
  }

  check() {
    if (this.socket && Date.now() - this.heardAt > SILENCE_MS) {
      const silent = this.socket;
      this.lose();
      silent.close();
    }
  }

  lose() {
    if (this.connected) this.lostAt = Date.now();
    this.connected = false;
    this.socket = { readyState: WebSocket.CLOSED };
    this.heardAt = Infinity;
    setTimeout(() => this.open(), this.waitMs);
    this.waitMs = Math.min(LONGEST_WAIT_MS, this.waitMs * 2);
  }
}
