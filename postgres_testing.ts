/**
 * A real PostgreSQL for tests, in a process of its own.
 *
 * @module
 */

/** What a test of the server needs. */
export const SERVER: Deno.PermissionOptionsObject = {
  net: true,
  read: ["."],
  // The client looks for what it was not told, and finds nothing that matters.
  env: true,
};

/** A server that runs until it is closed. */
export class TestServer implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #notices: ReadableStreamDefaultReader<Uint8Array>;
  readonly #commands: WritableStreamDefaultWriter<Uint8Array>;
  /** Where it listens, on 127.0.0.1. */
  port = 0;
  /** Of the user `postgres`. */
  password = "";
  /** The certificate of who signed that of the server, as PEM. */
  certificate = "";

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#notices = process.stdout.getReader();
    this.#commands = process.stdin.getWriter();
  }

  /** Starts a server with a database that is empty. */
  static async start(): Promise<TestServer> {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "-A", "postgres_server/main.ts"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const server = new TestServer(process);
    const { value } = await server.#notices.read();
    if (value === undefined) throw new Error("The server did not start");
    Object.assign(server, JSON.parse(new TextDecoder().decode(value)));
    return server;
  }

  /** Its URL, for the user `postgres` unless told otherwise. */
  url(
    parameters = "?sslmode=disable",
    { host = "127.0.0.1", user = "postgres", password = this.password } = {},
  ): string {
    return `postgres://${user}:${password}@${host}:${this.port}/postgres${parameters}`;
  }

  /** Has it done when the promise resolves. */
  async tell(command: "stop" | "start" | "restart"): Promise<void> {
    await this.#commands.write(new TextEncoder().encode(`${command}\n`));
    await this.#notices.read();
  }

  /** Stops it and removes all that it had. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#commands.close();
    await this.#notices.cancel();
    await this.#process.status;
  }
}
