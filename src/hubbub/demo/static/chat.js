"use strict";

const MAX_LINES = 500; // a room shows
const FIRST_DELAY = 0.5; // seconds
const MAX_DELAY = 5; // seconds
const CAN_FREEZE = "WebSocketStream" in self; // not in Firefox and Safari
const POLICIES = {
  disconnect: "disconnect",
  "drop-oldest": "drop oldest",
  "drop-newest": "drop newest",
  coalesce: "coalesce",
  block: "block",
};

const $ = (id) => document.getElementById(id);

const rooms = new Map(); // name -> {name, members, unread, floods, lines, item, button, count}
let wanted = ""; // the nick that was asked for
let nick = ""; // the nick that was given
let current = null; // the room that shows
let socket = null;
let connected = false;
let attempt = 0;
let timer = 0;
let frozen = false;
let watched = false;

// The connections

// A connection that can stop reading. A WebSocket cannot: the browser reads it, and keeps in
// memory whatever the page does not take. What a WebSocketStream is not asked for stays in the
// network's buffers, and when these are full the server has to wait.
class Connection {
  constructor(url, { onmessage, onclose }) {
    this.open = true;
    this.thawed = Promise.resolve();
    const end = (code, reason) => {
      if (!this.open) return;
      this.open = false;
      onclose(code, reason);
    };
    if (CAN_FREEZE) {
      this.stream = new WebSocketStream(url);
      this.read(onmessage).catch(() => {});
      this.stream.closed.then(
        ({ closeCode, reason }) => end(closeCode, reason),
        ({ closeCode, reason }) => end(closeCode, reason),
      );
    } else {
      this.socket = new WebSocket(url);
      this.socket.onmessage = ({ data }) => onmessage(data);
      this.socket.onclose = ({ code, reason }) => end(code, reason);
    }
  }

  async read(onmessage) {
    const { readable, writable } = await this.stream.opened;
    this.writer = writable.getWriter();
    const reader = readable.getReader();
    while (true) {
      await this.thawed;
      const { value, done } = await reader.read();
      if (done) return;
      onmessage(value);
    }
  }

  send(data) {
    if (this.socket) this.socket.send(data);
    else this.writer.write(data).catch(() => {}); // its end is told by onclose
  }

  freeze() {
    this.wasFrozen = true;
    this.thawed = new Promise((resolve) => (this.thaw = resolve));
  }
}

function urlOf(path, query = {}) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams(query);
  return url.href;
}

function connect() {
  clearTimeout(timer);
  const [first = "lobby"] = rooms.keys();
  const query = { nick: wanted, room: first, policy: $("policy").value };
  socket = new Connection(urlOf("ws/chat", query), {
    onmessage(data) {
      const { type, payload } = JSON.parse(data);
      receivers[type]?.(payload);
    },
    onclose(code, reason) {
      connected = false;
      if (frozen) freeze(false);
      $("freeze").disabled = true;
      if (code === 1008) return refuse(reason);
      if (socket.wasFrozen) reason ||= "this tab was frozen"; // it had no ear for the close frame
      if (reason) for (const room of rooms.values()) note(room, `You were disconnected: ${reason}.`);
      retry();
    },
  });
}

function retry() {
  // Some chance, so that everybody does not come back at the same moment.
  const delay = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** attempt) * (0.5 + Math.random() / 2);
  attempt += 1;
  showStatus("lost", `Connection lost. Trying again in ${Math.ceil(delay)} s …`);
  timer = setTimeout(connect, delay * 1000);
}

function watch() {
  watched = true;
  const watching = new WebSocket(urlOf("ws/outboxes"));
  watching.onmessage = ({ data }) => showOutboxes(JSON.parse(data).payload);
  watching.onclose = () => setTimeout(watch, 1000);
}

function send(type, payload) {
  if (!connected) {
    $("problem").textContent = "There is no connection. Wait for it, then try again.";
    return false;
  }
  $("problem").textContent = "";
  socket.send(JSON.stringify({ type, payload }));
  return true;
}

const receivers = {
  "chat.welcome"(payload) {
    connected = true;
    attempt = 0;
    nick = payload.nick;
    $("me").textContent = nick;
    $("me").className = "nick";
    tint($("me"), nick);
    $("problem").textContent = "";
    showStatus("connected", "Connected");
    $("freeze").disabled = false;
    if (!watched) watch();
    for (const name of rooms.keys()) {
      if (name !== payload.room) send("chat.join", { room: name });
    }
  },
  "chat.members"({ room: name, members }) {
    const known = rooms.get(name);
    const room = known ?? addRoom(name);
    room.members = new Set(members);
    if (known) note(room, "Connected again. What was said meanwhile is not shown.");
    else note(room, `You joined ${name}.`);
    if (!known) select(room);
    else showMembers();
  },
  "chat.joined"({ room: name, nick: who }) {
    const room = rooms.get(name);
    if (!room) return;
    room.members.add(who);
    note(room, `${who} joined.`);
    showMembers();
  },
  "chat.left"({ room: name, nick: who }) {
    const room = rooms.get(name);
    if (!room) return;
    room.members.delete(who);
    note(room, `${who} left.`);
    showMembers();
  },
  "chat.said"({ room: name, nick: who, text }) {
    const room = rooms.get(name);
    if (!room) return;
    addLine(room, said(who, text));
    if (room === current) {
      if (who === nick) scrollDown();
    } else {
      room.unread += 1;
      showUnread();
    }
  },
  "chat.flooded"({ room: name, nick: who, number, of }) {
    const room = rooms.get(name);
    if (room) countWave(room, who, number, of);
  },
  error({ message }) {
    $("problem").textContent = message;
  },
};

// The rooms

function addRoom(name) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const count = element("span", "unread", "");
  const lines = document.createElement("ol");
  const room = { name, members: new Set(), unread: 0, floods: new Map(), lines, item, button, count };
  button.type = "button";
  button.append(element("span", "name", name), count);
  button.addEventListener("click", () => select(room));
  count.hidden = true;
  lines.hidden = true;
  item.append(button);
  $("rooms").append(item);
  $("log").append(lines);
  rooms.set(name, room);
  $("leave").disabled = rooms.size < 2;
  return room;
}

function removeRoom(room) {
  rooms.delete(room.name);
  room.item.remove();
  room.lines.remove();
  $("leave").disabled = rooms.size < 2;
}

function select(room) {
  for (const other of rooms.values()) {
    other.lines.hidden = other !== room;
    other.button.removeAttribute("aria-current");
  }
  current = room;
  room.unread = 0;
  room.button.setAttribute("aria-current", "true");
  $("title").textContent = room.name;
  showUnread();
  showMembers();
  scrollDown();
  $("text").focus();
}

function showUnread() {
  let all = 0;
  for (const room of rooms.values()) {
    all += room.unread;
    room.count.hidden = room.unread === 0;
    room.count.textContent = room.unread;
    room.count.append(element("span", "unseen", " unread"));
  }
  document.title = all ? `(${all}) hubbub chat` : "hubbub chat";
}

function showMembers() {
  const nicks = [...current.members].sort((a, b) => a.localeCompare(b));
  $("members").replaceChildren(
    ...nicks.map((who) => {
      const item = element("li", "", "");
      tint(item, who);
      item.append(element("span", "", who));
      if (who === nick) item.append(element("span", "muted", "you"));
      return item;
    }),
  );
}

// The lines of a room

function said(who, text) {
  const line = element("li", who === nick ? "said mine" : "said", "");
  const by = element("div", "by", "");
  const name = element("span", "nick", who);
  tint(name, who);
  const now = new Date();
  const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = now.toISOString();
  by.append(name, time);
  line.append(by, element("div", "text", text));
  return line;
}

function note(room, text) {
  addLine(room, element("li", "note", text));
}

function countWave(room, who, number, of) {
  let flood = room.floods.get(who);
  if (!flood || number <= flood.last) {
    flood = { line: element("li", "note flood", ""), last: 0, got: 0 };
    room.floods.set(who, flood);
    addLine(room, flood.line);
  }
  flood.got += 1;
  flood.last = number;
  const missed = number - flood.got;
  flood.line.textContent =
    `${who} floods the room: ${flood.got} of ${of} messages came` + (missed ? `, ${missed} are missing.` : ".");
}

function addLine(room, line) {
  room.lines.append(line);
  if (room.lines.childElementCount > MAX_LINES) room.lines.firstElementChild.remove();
}

function scrollDown() {
  $("log").scrollTop = 0; // the end, because the log is a column in reverse
}

// The outboxes

function showOutboxes({ members, hidden, disconnected }) {
  const boxes = $("boxes");
  const old = new Map([...boxes.children].map((box) => [box.dataset.of, box]));
  boxes.replaceChildren(
    ...members.map((member) => fillBox(old.get(`here ${member.nick}`) ?? makeBox("here", member), member)),
    ...disconnected.map((guest) => makeGone(guest)),
  );
  $("hidden").textContent = hidden ? `and ${hidden} more` : "";
}

function makeBox(state, { nick: who, policy }) {
  const box = element("li", state, "");
  box.dataset.of = `${state} ${who}`;
  const name = element("span", "nick", who);
  tint(name, who);
  const head = element("div", "by", "");
  head.append(name, element("span", "muted", POLICIES[policy]));
  box.append(head);
  return box;
}

function makeGone(guest) {
  const box = makeBox("gone", guest);
  const text = guest.reason ? `disconnected: ${guest.reason}` : "being disconnected …";
  box.append(element("p", "problem", text));
  return box;
}

function fillBox(box, { nick: who, waiting, capacity, bytes, max_bytes: most, dropped }) {
  let meter = box.querySelector("meter");
  if (!meter) {
    meter = document.createElement("meter");
    meter.setAttribute("aria-label", `Outbox of ${who}`);
    box.append(meter, element("p", "figures", ""));
  }
  meter.value = Math.max(waiting / capacity, bytes / most);
  meter.high = 0.75;
  meter.low = 0.4;
  meter.optimum = 0;
  const figures = box.querySelector(".figures");
  figures.replaceChildren(`${waiting} of ${capacity} · ${Math.ceil(bytes / 1024)} KiB`);
  if (dropped) figures.append(element("strong", "", `${dropped} dropped`));
  return box;
}

function freeze(now) {
  frozen = now;
  if (frozen) socket.freeze();
  else socket.thaw();
  document.body.classList.toggle("frozen", frozen);
  $("freeze").setAttribute("aria-pressed", frozen);
  $("freeze").textContent = frozen ? "Read on" : "Freeze this tab";
  if (frozen) showStatus("frozen", "Frozen");
  else if (connected) showStatus("connected", "Connected");
}

// The rest of the page

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text; // never as HTML: it is what somebody typed
  return made;
}

function tint(target, who) {
  let hash = 0;
  for (const character of who) hash = (hash * 31 + character.codePointAt(0)) % 2 ** 32;
  // By the golden angle, so that names that are alike have colours that are not.
  target.style.setProperty("--hue", (hash * 137.508) % 360);
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

function refuse(reason) {
  $("chat").hidden = true;
  $("door").hidden = false;
  $("refusal").textContent = reason;
  $("nick").focus();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  wanted = $("nick").value.trim();
  $("refusal").textContent = "";
  $("door").hidden = true;
  $("chat").hidden = false;
  showStatus("connecting", "Connecting …");
  connect();
});

$("freeze").addEventListener("click", () => freeze(!frozen));

$("flood").addEventListener("click", () => send("chat.flood", { room: current?.name }));

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (text.trim() && send("chat.say", { room: current?.name, text })) $("text").value = "";
  $("text").focus();
});

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("room").value.trim();
  if (rooms.has(name)) select(rooms.get(name));
  else if (!send("chat.join", { room: name })) return;
  $("room").value = "";
});

$("leave").addEventListener("click", () => {
  const room = current;
  if (!send("chat.leave", { room: room.name })) return;
  removeRoom(room);
  select(rooms.values().next().value);
});

addEventListener("online", () => {
  if (wanted && !connected && !socket.open) connect();
});

if (!CAN_FREEZE) {
  $("freeze").hidden = true;
  $("explanation").textContent =
    "In this browser a page cannot stop reading a WebSocket, so that this tab cannot be frozen. " +
    "Open one in Chrome, Edge or Opera, from version 124 on, and watch it from here.";
}
if (matchMedia("(max-width: 48rem)").matches) $("outboxes").open = false;
