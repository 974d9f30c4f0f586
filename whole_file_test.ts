import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { temporaryFolder } from "./testing.ts";
import { WholeFile } from "./whole_file.ts";

const permissions = { read: ["."], write: [".tmp"] };
const permissionsToLink = { ...permissions, run: ["ln"] };
const isWindows = Deno.build.os === "windows";

async function namesIn(path: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(path)) names.push(name);
  return names.sort();
}

async function writeWhole(path: string, text: string): Promise<void> {
  await using file = await WholeFile.create(path);
  await file.write(text);
  await file.finish();
}

// `Deno.symlink` would need the permission to write anywhere.
async function makeLink(target: string, path: string): Promise<void> {
  const args = ["-s", target, path];
  const { success } = await new Deno.Command("ln", { args }).output();
  assert(success);
}

Deno.test({
  name: "WholeFile appears only when it is finished, with all that was written",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const path = folder.file("out.json");
    {
      await using file = await WholeFile.create(path);
      await file.write("ä");
      await file.write("");
      await file.write("😀".repeat(100_000));
      await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
      await file.finish();
      assertEquals(await namesIn(folder.path), ["out.json"]);
    }
    assert(await Deno.readTextFile(path) === "ä" + "😀".repeat(100_000));
    assertEquals(await namesIn(folder.path), ["out.json"]);
  },
});

Deno.test({
  name: "WholeFile replaces a longer file whole, and keeps it until then",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const path = folder.file("out.json");
    await Deno.writeTextFile(path, "old and longer");
    await using file = await WholeFile.create(path);
    await file.write("new");
    assertEquals(await Deno.readTextFile(path), "old and longer");
    await file.finish();
    assertEquals(await Deno.readTextFile(path), "new");
  },
});

Deno.test({
  name:
    "WholeFile keeps the mode bits, lest a secret or shared file change hands",
  permissions,
  ignore: isWindows,
  async fn() {
    await using folder = await temporaryFolder();
    // Some of these a usual umask would take from a new file.
    for (const mode of [0o600, 0o640, 0o644, 0o666, 0o755, 0o777]) {
      const path = folder.file(`out-${mode.toString(8)}`);
      await Deno.writeTextFile(path, "old");
      await Deno.chmod(path, mode);
      await writeWhole(path, "new");
      const kept = (await Deno.stat(path)).mode ?? 0;
      assertEquals((kept & 0o777).toString(8), mode.toString(8));
    }
  },
});

Deno.test({
  name:
    "WholeFile that is not finished leaves the old content and nothing else",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const path = folder.file("out.json");
    await Deno.writeTextFile(path, "old");
    await assertRejects(async () => {
      await using file = await WholeFile.create(path);
      await file.write("new");
      throw new Error("in the midst");
    });
    assertEquals(await Deno.readTextFile(path), "old");
    assertEquals(await namesIn(folder.path), ["out.json"]);
  },
});

Deno.test({
  name: "WholeFile makes the folders that are missing",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const path = folder.file("a/b/c/out.json");
    await writeWhole(path, "new");
    assertEquals(await Deno.readTextFile(path), "new");
    assertEquals(await namesIn(folder.file("a/b/c")), ["out.json"]);
  },
});

Deno.test({
  name: "WholeFile that is not finished takes the folders it made away again",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await Deno.mkdir(folder.file("a"));
    {
      await using file = await WholeFile.create(folder.file("a/b/c/out.json"));
      await file.write("new");
      assertEquals(await namesIn(folder.file("a")), ["b"]);
    }
    assertEquals(await namesIn(folder.path), ["a"]);
    assertEquals(await namesIn(folder.file("a")), []);
  },
});

Deno.test({
  name: "WholeFile leaves a folder it made if somebody else uses it meanwhile",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    {
      await using _ = await WholeFile.create(folder.file("a/b/out.json"));
      await Deno.writeTextFile(folder.file("a/theirs"), "");
    }
    assertEquals(await namesIn(folder.file("a")), ["theirs"]);
  },
});

Deno.test({
  name: "WholeFile replaces what a link points to, and the link stays a link",
  permissions: permissionsToLink,
  ignore: isWindows,
  async fn() {
    await using folder = await temporaryFolder();
    await Deno.mkdir(folder.file("elsewhere"));
    const target = folder.file("elsewhere/real.json");
    await Deno.writeTextFile(target, "old");
    await makeLink("elsewhere/real.json", folder.file("link"));
    await makeLink("link", folder.file("link-to-link"));
    await writeWhole(folder.file("link-to-link"), "new");
    assertEquals(await Deno.readTextFile(target), "new");
    assert((await Deno.lstat(folder.file("link"))).isSymlink);
    assert((await Deno.lstat(folder.file("link-to-link"))).isSymlink);
    assertEquals(await namesIn(folder.file("elsewhere")), ["real.json"]);
  },
});

Deno.test({
  name:
    "WholeFile makes the file that a link points to, if it is not there yet",
  permissions: permissionsToLink,
  ignore: isWindows,
  async fn() {
    await using folder = await temporaryFolder();
    await makeLink("elsewhere/real.json", folder.file("link"));
    await makeLink("link", folder.file("link-to-link"));
    await writeWhole(folder.file("link-to-link"), "new");
    assert((await Deno.lstat(folder.file("link-to-link"))).isSymlink);
    assert((await Deno.lstat(folder.file("link"))).isSymlink);
    const target = folder.file("elsewhere/real.json");
    assertEquals(await Deno.readTextFile(target), "new");
  },
});

Deno.test({
  name: "WholeFile refuses a link that leads to itself",
  permissions: permissionsToLink,
  ignore: isWindows,
  async fn() {
    await using folder = await temporaryFolder();
    await makeLink("b", folder.file("a"));
    await makeLink("a", folder.file("b"));
    await assertRejects(() => WholeFile.create(folder.file("a")), Error);
    assertEquals(await namesIn(folder.path), ["a", "b"]);
  },
});

Deno.test({
  name: "WholeFile refuses a folder in its place, and leaves it alone",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await Deno.mkdir(folder.file("out"));
    await Deno.writeTextFile(folder.file("out/x"), "");
    await assertRejects(
      () => WholeFile.create(folder.file("out")),
      Deno.errors.IsADirectory,
    );
    assertEquals(await namesIn(folder.path), ["out"]);
    assertEquals(await namesIn(folder.file("out")), ["x"]);
  },
});

Deno.test({
  name: "WholeFile refuses a path below a file, and makes nothing",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await Deno.writeTextFile(folder.file("x"), "old");
    for (const path of ["x/out.json", "x/a/out.json"]) {
      await assertRejects(() => WholeFile.create(folder.file(path)), Error);
    }
    assertEquals(await namesIn(folder.path), ["x"]);
    assertEquals(await Deno.readTextFile(folder.file("x")), "old");
  },
});

Deno.test({
  name: "WholeFile takes every name that the file system takes",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const names = ["n".repeat(255), "é".repeat(127), "-", ".x", " ", "a'\"b"];
    for (const name of names) await writeWhole(folder.file(name), "new");
    assertEquals(await namesIn(folder.path), names.sort());
  },
});

Deno.test({
  name: "WholeFile.copyTo() gives all that was written, and leaves both open",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await using file = await WholeFile.create(folder.file("out.json"));
    const text = "é".repeat(100_001);
    await file.write(text);
    for (let round = 0; round < 2; round++) {
      const decoder = new TextDecoder();
      let copy = "";
      const stream = new WritableStream<Uint8Array>({
        write(chunk) {
          copy += decoder.decode(chunk, { stream: true });
        },
      });
      await file.copyTo(stream);
      assert(copy === text);
      assert(!stream.locked);
    }
    await file.finish();
    assert(await Deno.readTextFile(folder.file("out.json")) === text);
  },
});

Deno.test({
  name: "WholeFile.copyTo() passes on the failure of the stream",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await using file = await WholeFile.create(folder.file("out.json"));
    await file.write("new");
    const error = await assertRejects(() =>
      file.copyTo(
        new WritableStream({
          write() {
            throw new Error("broken pipe");
          },
        }),
      ), Error);
    assertStringIncludes(error.message, "broken pipe");
  },
});
