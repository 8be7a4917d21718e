// Where the host is installed is nobody's business: reports of our nodes' failures are copied into chats and issues.

/** A traceback's lines in which files have the last folder before their name alone. */
export function withoutFolders(lines) {
  return lines.map((line) => line.replace(/File "(?:[^"]*[\\/])?([^"\\/]+[\\/][^"\\/]+)"/g, 'File "$1"'))
}
