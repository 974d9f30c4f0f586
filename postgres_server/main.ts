/**
 * A real PostgreSQL for the tests and the benchmarks: started on a free port of
 * the loopback interface, gone with whoever started it.
 *
 *     deno run -A postgres_server/main.ts
 *
 * prints a line of JSON once the server is ready, and one for each command that
 * it has carried out: `stop`, `start`, `restart` or `crash`, a line each on
 * standard input. At the end of the input everything is removed.
 *
 * PostgreSQL does not run as root, and another user may not be able to read the
 * folder of this checkout; so the packages are set up in a temporary folder that
 * everybody can reach.
 *
 * @module
 */

const FILES = ["deno.json", "deno.lock", "server.ts"];

if (import.meta.main) {
  const folder = await Deno.makeTempDir({ prefix: "postgres_server_" });
  // An interrupted test run closes the input too, and that is the way to end.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {});
  }
  let code = 1;
  try {
    await Deno.chmod(folder, 0o755);
    for (const file of FILES) {
      await Deno.copyFile(new URL(file, import.meta.url), `${folder}/${file}`);
    }
    const server = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--frozen", "-A", "server.ts"],
      cwd: folder,
      stdin: "inherit",
    }).spawn();
    code = (await server.status).code;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  Deno.exit(code);
}
