"use strict";

const MAX_LINES = 500; // a room shows
const FIRST_DELAY = 0.5; // seconds
const MAX_DELAY = 5; // seconds

const $ = (id) => document.getElementById(id);

const rooms = new Map(); // name -> {name, members, unread, lines, item, button, count}
let wanted = ""; // the nick that was asked for
let nick = ""; // the nick that was given
let current = null; // the room that shows
let socket = null;
let connected = false;
let attempt = 0;
let timer = 0;

// The connection

function connect() {
  clearTimeout(timer);
  const url = new URL("ws/chat", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const [first = "lobby"] = rooms.keys();
  url.search = new URLSearchParams({ nick: wanted, room: first });
  socket = new WebSocket(url);
  socket.onmessage = (event) => {
    const { type, payload } = JSON.parse(event.data);
    receivers[type]?.(payload);
  };
  socket.onclose = (event) => {
    connected = false;
    if (event.code === 1008) refuse(event.reason);
    else retry();
  };
}

function retry() {
  // Some chance, so that everybody does not come back at the same moment.
  const delay = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** attempt) * (0.5 + Math.random() / 2);
  attempt += 1;
  showStatus("lost", `Connection lost. Trying again in ${Math.ceil(delay)} s …`);
  timer = setTimeout(connect, delay * 1000);
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
    addLine(room, said(who, text), who === nick);
    if (room !== current) {
      room.unread += 1;
      showUnread();
    }
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
  const room = { name, members: new Set(), unread: 0, lines, item, button, count };
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
  addLine(room, element("li", "note", text), false);
}

function addLine(room, line, always) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  room.lines.append(line);
  if (room.lines.childElementCount > MAX_LINES) room.lines.firstElementChild.remove();
  if (room === current && (always || atEnd)) scrollDown();
}

function scrollDown() {
  $("log").scrollTop = $("log").scrollHeight;
}

// The rest of the page

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text; // never as HTML: it is what somebody typed
  return made;
}

function tint(target, who) {
  let hue = 0;
  for (const character of who) hue = (hue * 31 + character.codePointAt(0)) % 360;
  target.style.setProperty("--hue", hue);
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
  if (wanted && !connected && socket.readyState === WebSocket.CLOSED) connect();
});
