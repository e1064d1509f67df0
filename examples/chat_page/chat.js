// The page keeps the conversation, sends all of it with each question, and shows the answer while it is written.
//
//   POST chat      {"messages": [{"role": "user", "blocks": [{"type": "text", "text": "Hi"}]}]}
//                  -> server-sent events: the chunks of the answer, then [DONE]
//   POST markdown  *Hi* -> HTML; any HTML in the text is escaped

const RENDER_EVERY_MS = 250;
const COMPLETE_REASONS = ["end_turn", "stop_sequence"];
const STORED = "completion.chat"; // the conversation in sessionStorage, which a tab keeps when it is reloaded

const [form, question, log, send, stop, status, newChat] = [
  "form", "question", "log", "send", "stop", "status", "new",
].map((id) => document.getElementById(id));
const HINT = status.textContent;
const messages = [];
let aborter = null; // the AbortController of the answer that is being written
let unfinished = () => []; // returns the question and the text so far, while an answer is being written

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (text && !aborter) ask(text);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
stop.addEventListener("click", () => aborter?.abort());
document.addEventListener("keydown", (event) => event.key === "Escape" && aborter?.abort());
newChat.addEventListener("click", (event) => {
  event.preventDefault();
  messages.length = 0;
  unfinished = () => [];
  location.reload(); // which stores the empty conversation first
});
window.addEventListener("pagehide", store); // in the middle of an answer, its text so far is kept too

async function ask(text) {
  const userMessage = message("user", text);
  const answer = new Answer();
  showQuestion(text);
  log.append(answer.element);
  unfinished = () => (answer.text ? [userMessage, message("assistant", answer.text)] : []);
  question.value = "";
  begin();
  try {
    const reason = await receive([...messages, userMessage], answer, aborter.signal);
    await answer.end(COMPLETE_REASONS.includes(reason) ? "" : `The model stopped early: ${reason}.`);
    finish("The answer is complete.");
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (!answer.text && !question.value) question.value = text; // so that the user can send it again
    await (stopped ? answer.end("Stopped.") : answer.fail(explain(error)));
    finish(stopped ? HINT : "The answer failed.");
  }
  messages.push(...unfinished());
  unfinished = () => [];
  store();
}

function showQuestion(text) {
  log.append(labelled("You", element("article", "user", text)));
}

function store() {
  try {
    sessionStorage.setItem(STORED, JSON.stringify([...messages, ...unfinished()]));
  } catch {
    // The browser allows no storage, or the conversation is too long for it: a reload loses it.
  }
}

function restore() {
  try {
    messages.push(...JSON.parse(sessionStorage.getItem(STORED) ?? "[]"));
  } catch {
    return; // the browser allows no storage
  }
  for (const { role, blocks } of messages) {
    if (role === "user") {
      showQuestion(blocks[0].text);
    } else {
      const answer = new Answer();
      log.append(answer.element);
      answer.addText(blocks[0].text);
      answer.end();
    }
  }
}

function begin() {
  aborter = new AbortController();
  swap(send, stop);
  status.textContent = "The model answers. Escape stops it.";
}

function finish(words) {
  aborter = null;
  swap(stop, send);
  status.textContent = words;
}

function swap(shown, hidden) {
  const hadFocus = document.activeElement === shown;
  [shown.hidden, hidden.hidden] = [true, false];
  if (hadFocus) hidden.focus();
}

// Fills the answer. Returns the finish reason; throws if the answer is not complete.
async function receive(conversation, answer, signal) {
  const response = await post("chat", "application/json", JSON.stringify({ messages: conversation }), signal);
  if (!response.ok) throw await refusal(response);
  let reason;
  for await (const data of events(response)) {
    if (data === "[DONE]") return reason;
    const chunk = JSON.parse(data);
    if (chunk.type === "text_delta") answer.addText(chunk.delta);
    else if (chunk.type === "reasoning_delta") answer.addReasoning(chunk.delta);
    else if (chunk.type === "turn_finished") reason = chunk.reason;
    else if (chunk.type === "error") throw new Failure(chunk.error);
  }
  throw new Failure({ message: "The connection ended in the middle of the answer." });
}

// Yields the data of each server-sent event. Skips comments, which only keep the connection alive.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const blocks = (text + read.value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) if (block.startsWith("data: ")) yield block.slice("data: ".length);
  }
}

// An error that the server has sent, before or during the answer.
class Failure extends Error {
  constructor({ type, message, retry_after }) {
    const wait = retry_after ? ` Wait for ${Math.ceil(retry_after)} s.` : "";
    super(`${message}${wait}${type ? ` (${type})` : ""}`);
  }
}

async function refusal(response) {
  const unknown = { message: `The server refused: ${response.status} ${response.statusText}` };
  const body = await response.json().catch(() => ({})); // not JSON, for example an error page of a proxy
  return new Failure(body.error ?? unknown);
}

function explain(error) {
  return error instanceof Failure ? error.message : `The connection broke: ${error.message}.`;
}

function post(path, type, body, signal) {
  const headers = { "Content-Type": type, "X-CSRFToken": document.body.dataset.csrfToken };
  return fetch(path, { method: "POST", headers, body, signal });
}

function message(role, text) {
  return { role, blocks: [{ type: "text", text }] };
}

function element(name, className, ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}

function labelled(label, made) {
  made.ariaLabel = label;
  return made;
}

// One answer on the page. A few times a second, the server makes HTML of the text so far; newer text is in the tail, as
// plain text. Only this HTML of the server is ever inserted as HTML.
class Answer {
  text = "";
  #body = element("div", "answer");
  #tail = element("span", "tail");
  #reasoning = element("details", "", element("summary", "", "Thoughts"));
  #rendering = null;

  constructor() {
    this.element = labelled("Answer", element("article", "assistant", this.#body));
    this.element.ariaBusy = "true"; // screen readers read the complete answer, not every chunk
    this.#body.append(this.#tail);
  }

  addText(delta) {
    this.text += delta;
    this.#tail.append(delta);
    this.#rendering ??= this.#render();
  }

  addReasoning(delta) {
    if (!this.#reasoning.isConnected) this.element.prepend(this.#reasoning);
    this.#reasoning.append(delta);
  }

  async end(note) {
    await this.#rendering;
    if (note) this.element.append(element("p", "note", note));
    this.element.ariaBusy = "false";
  }

  async fail(words) {
    const shown = element("p", "error", words);
    shown.role = "alert";
    this.element.append(shown);
    await this.end();
  }

  async #render() {
    let text;
    do {
      await new Promise((resolve) => setTimeout(resolve, RENDER_EVERY_MS));
      text = this.text;
      const html = await rendered(text);
      if (html === null) continue; // the text stays plain
      this.#body.innerHTML = html;
      this.#tail.textContent = this.text.slice(text.length);
      lastBlock(this.#body).append(this.#tail);
    } while (text !== this.text);
    this.#rendering = null;
  }
}

async function rendered(text) {
  try {
    const response = await post("markdown", "text/plain", text);
    return response.ok ? await response.text() : null;
  } catch {
    return null;
  }
}

// The element where the text continues: the last paragraph, list item or code.
function lastBlock(body) {
  let last = body;
  while (last.lastElementChild?.matches("p, ul, ol, li, blockquote, pre, pre > code")) last = last.lastElementChild;
  return last;
}

restore(); // at the end, because a class exists only after its definition
