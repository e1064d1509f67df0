// Does what useChat does, without React: a chat with the package named in argv, driven by a scenario on stdin.
//
//   {"api": "http://…", "say": [[…parts]], "tools": {"name": output}, "approve": {"name": true}, "stopAt": "text"}
//
// Each entry of `say` is sent as a user's message. A call of one of the `tools` gets its output at once; the output
// {"error": "…"} is a failure. A call that asks for an approval gets that of its tool in `approve`: true, or a reason
// against it. Then the chat continues without a new message, at most `rounds` times. With `stopAt`,
// the chat is stopped as soon as the answer contains this text. The result is printed as JSON.

const {
  AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} = await import(process.argv[2]);

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => {
    this.messages = this.messages.map((old, at) => (at === index ? structuredClone(message) : old));
    this.replaced?.(message);
  };
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor(options) {
    const state = new State();
    super({ ...options, state });
    this.seen = state;
  }
}

let input = "";
for await (const piece of process.stdin) input += piece;
const { api, say, tools = {}, approve = {}, rounds = 3, stopAt } = JSON.parse(input);

const ends = [];
const chat = new Chat({
  transport: new DefaultChatTransport({ api }),
  sendAutomaticallyWhen: (given) =>
    ends.length <= rounds &&
    (lastAssistantMessageIsCompleteWithToolCalls(given) || lastAssistantMessageIsCompleteWithApprovalResponses(given)),
  onToolCall: ({ toolCall: { toolName: tool, toolCallId } }) => {
    if (!(tool in tools)) return;
    const output = tools[tool];
    const failed = output?.error === undefined ? { output } : { state: "output-error", errorText: output.error };
    chat.addToolOutput({ tool, toolCallId, ...failed });
  },
  onFinish: ({ isAbort, isError, isDisconnect, finishReason }) =>
    ends.push({ isAbort, isError, isDisconnect, finishReason }),
});
if (stopAt !== undefined) {
  chat.seen.replaced = (message) => {
    if (message.parts.some((part) => part.type === "text" && part.text.includes(stopAt))) chat.stop();
  };
}
for (const parts of say) {
  await chat.sendMessage({ parts });
  for (const part of chat.messages.at(-1).parts) {
    if (part.state !== "approval-requested") continue;
    const answer = approve[part.type.replace("tool-", "")];
    await chat.addToolApprovalResponse({
      id: part.approval.id, approved: answer === true, ...(answer === true ? {} : { reason: answer }),
    });
  }
  while (chat.status === "submitted" || chat.status === "streaming") await new Promise((done) => setTimeout(done, 10));
}

const { status, error, messages } = chat;
process.stdout.write(JSON.stringify({ status, error: error?.message, ends, messages }));
