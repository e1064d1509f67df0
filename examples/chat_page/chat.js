// The page keeps the conversation, sends all of it with each question, and shows the answer as it is written.
//
//   POST chat      {"messages": [{"role": "user", "blocks": [{"type": "text", "text": "Hi"}]}]}
//                  -> server-sent events: the chunks of the answer, then [DONE]
//   POST markdown  *Hi* -> HTML in which nothing of the text is HTML

const RENDER_EVERY_MS = 250;
const GOOD_ENDS = ["end_turn", "stop_sequence"];

const [form, question, log, send, stop, status] = ["form", "question", "log", "send", "stop", "status"].map((id) =>
  document.getElementById(id),
);
const messages = [];
let writing = null; // aborts the answer that is being written

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (text && !writing) ask(text);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
stop.addEventListener("click", () => writing?.abort());
document.addEventListener("keydown", (event) => event.key === "Escape" && writing?.abort());

async function ask(text) {
  const asked = message("user", text);
  const answer = new Answer();
  log.append(labelled("You", element("article", "user", text)), answer.element);
  question.value = "";
  begin();
  try {
    const reason = await receive([...messages, asked], answer, writing.signal);
    await answer.end(GOOD_ENDS.includes(reason) ? "" : `The model stopped early: ${reason}.`);
    finish("The answer is complete.");
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (!answer.text && !question.value) question.value = text; // to be asked once more
    await (stopped ? answer.end("Stopped.") : answer.fail(explain(error)));
    finish(stopped ? "Stopped." : "The answer failed.");
  }
  if (answer.text) messages.push(asked, message("assistant", answer.text));
}

function begin() {
  writing = new AbortController();
  swap(send, stop);
  status.textContent = "The model answers. Escape stops it.";
}

function finish(words) {
  writing = null;
  swap(stop, send);
  status.textContent = words;
}

function swap(shown, hidden) {
  const hadFocus = document.activeElement === shown;
  [shown.hidden, hidden.hidden] = [true, false];
  if (hadFocus) hidden.focus();
}

// Fills the answer and returns why the model stopped; an answer that did not come to its end throws.
async function receive(conversation, answer, signal) {
  const response = await post("chat", "application/json", JSON.stringify({ messages: conversation }), signal);
  if (!response.ok) throw await refusal(response);
  let reason;
  for await (const data of events(response)) {
    if (data === "[DONE]") return reason;
    const chunk = JSON.parse(data);
    if (chunk.type === "text_delta") answer.say(chunk.delta);
    else if (chunk.type === "reasoning_delta") answer.think(chunk.delta);
    else if (chunk.type === "turn_finished") reason = chunk.reason;
    else if (chunk.type === "error") throw new Failure(chunk.error);
  }
  throw new Failure({ message: "The connection ended in the middle of the answer." });
}

// The data of each server-sent event; comments, which keep the connection alive, are passed over.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const blocks = (text + read.value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) if (block.startsWith("data: ")) yield block.slice("data: ".length);
  }
}

// What the server, or the model's provider, said instead of an answer.
class Failure extends Error {
  constructor({ type, message, retry_after }) {
    const wait = retry_after ? ` Wait for ${Math.ceil(retry_after)} s.` : "";
    super(`${message}${wait}${type ? ` (${type})` : ""}`);
  }
}

async function refusal(response) {
  const words = { message: `The server refused: ${response.status} ${response.statusText}` };
  const said = await response.json().catch(() => ({})); // a proxy, for example, answers with a page
  return new Failure(said.error ?? words);
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

// One answer on the page. The server makes HTML of the text so far, a few times a second; what came since then stands
// in the tail as plain text. Nothing else is ever put in as HTML.
class Answer {
  text = "";
  #body = element("div", "answer");
  #tail = element("span", "tail");
  #thoughts = element("details", "", element("summary", "", "Thoughts"));
  #rendering = null;

  constructor() {
    this.element = labelled("Answer", element("article", "assistant", this.#body));
    this.element.ariaBusy = "true"; // read aloud when it is whole, not piece by piece
    this.#body.append(this.#tail);
  }

  say(delta) {
    this.text += delta;
    this.#tail.append(delta);
    this.#rendering ??= this.#render();
  }

  think(delta) {
    if (!this.#thoughts.isConnected) this.element.prepend(this.#thoughts);
    this.#thoughts.append(delta);
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
      if (html === null) continue; // the text stays as it is
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

// Where the text goes on: in the last paragraph, item or code.
function lastBlock(body) {
  let last = body;
  while (last.lastElementChild?.matches("p, ul, ol, li, blockquote, pre, pre > code")) last = last.lastElementChild;
  return last;
}
