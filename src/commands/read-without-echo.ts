import { CodedError } from "../coded-error.js";

const LONGEST = 16_384;

/** One line from the terminal, of which nothing is shown. Throws CodedError `not-confirmed` on Ctrl-C and Ctrl-D. */
export function readWithoutEcho(prompt: string): Promise<string> {
  const { stdin, stderr } = process;
  // First: what is typed as soon as the prompt is there is not shown either.
  stdin.setRawMode(true);
  stderr.write(prompt);
  stdin.setEncoding("utf8");
  return new Promise((resolve, reject) => {
    let line = "";
    const end = (settle: () => void) => {
      stdin.off("data", typed);
      stdin.setRawMode(false);
      stdin.pause();
      stderr.write("\n");
      settle();
    };
    const typed = (text: string) => {
      for (const character of text) {
        // Ctrl-C, Ctrl-D.
        if (character === "\x03" || character === "\x04") {
          end(() => reject(new CodedError("not-confirmed", "nothing was changed")));
          return;
        }
        if (character === "\r" || character === "\n") {
          end(() => resolve(line));
          return;
        }
        if (character === "\x7f" || character === "\b") line = line.slice(0, -1);
        else if (line.length < LONGEST) line += character;
      }
    };
    stdin.on("data", typed);
  });
}
