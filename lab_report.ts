/**
 * The lab for people: its cases as a list, a case as two columns of 80 together,
 * the score, and all of it as a page. And for machines: the list as JSON.
 *
 * @module
 */

import {
  choicesOf,
  LAB_CASES,
  type LabRun,
  type LabSide,
  settingsOf,
} from "./lab.ts";
import {
  type CaseValues,
  type Figure,
  type FigureRow,
  type LabCase,
  type LabEvent,
  type Series,
  type SettingName,
  SETTINGS,
} from "./lab_bench.ts";
import type { CheckReport } from "./lab_check.ts";
import { type Draw, escape, htmlTable, loadCharts, page } from "./page.ts";
import {
  clean,
  fold,
  foldHead,
  peaks,
  percent,
  short,
  table,
  wrap,
} from "./terminal.ts";

/** The names of both columns. */
function columnsOf(lab: LabCase): readonly [string, string] {
  return lab.columns ?? ["without the guard", "with it"];
}

/** The command that changes one thing about a case. */
export function experimentOf(lab: LabCase): string {
  return `deno task lab ${lab.name} ${lab.experiment.flag}`;
}

/** Why no difference was shown. */
function alikeText({ lab, result }: LabRun): string {
  const { without_guard, with_guard } = result;
  return lab.holds(with_guard.figures)
    ? "With these settings all goes well without the guard, too."
    : lab.holds(without_guard.figures)
    ? "With these settings it went well without the guard only."
    : "With these settings the guard is not enough either.";
}

const GROUPS = { alter: "Alter", break: "Break and fix", explain: "Explain" };

/** What there is, for a terminal. */
export function casesText(): string {
  const groups = Object.entries(GROUPS).map(([prefix, title]) =>
    `${title}\n` +
    LAB_CASES.filter(({ name }) => name.startsWith(`${prefix}-`)).map((
      { name, title },
    ) => `  ${name.padEnd(24)}  ${title}\n`).join("")
  );
  return `Each case runs the same steps twice: without a guard, on a pool as one writes
it on the first day (the specimen, NaivePool in lab.ts), and with it.

${groups.join("\n")}
Run one:      deno task lab break-double-release
Predict:      deno task lab break-double-release --interactive
Run all:      deno task lab all
Do it:        deno task lab:start my_lab
`;
}

/** What there is, for machines. */
export function casesJson(): Record<string, unknown> {
  return {
    cases: LAB_CASES.map((lab) => ({
      ...{ case: lab.name, title: lab.title, assumption: lab.assumption },
      question: questionOf(lab, settingsOf(lab)),
      choices: choicesOf(lab),
      settings: settingsOf(lab),
      ...{ on_server: lab.onServer ?? false, guard: lab.guard },
      try: { command: experimentOf(lab), look: lab.experiment.look },
    })),
  };
}

/** The question of a case about the settings that it is told. */
function questionOf(lab: LabCase, settings: CaseValues): string {
  return lab.question.replaceAll(/\{(\w+)\}/g, (_, name: SettingName) => {
    const value = settings[name] ?? NaN;
    return SETTINGS[name][1] === "P"
      ? percent(value)
      : value.toLocaleString("en");
  });
}

/** What is to be predicted: the assumption, the question and the choices. */
export function questionText(lab: LabCase, settings: CaseValues): string {
  return `${lab.name}: ${lab.title}\n\n` +
    wrap(`Assumed: ${lab.assumption}`, "") + "\n" +
    wrap(questionOf(lab, settings), "") +
    choicesOf(lab).map((choice, i) => `  ${letterOf(i)}  ${choice}\n`).join("");
}

/** The letter of a choice. */
export function letterOf(choice: number): string {
  return "abc"[choice] ?? "?";
}

/** A line of two columns; undefined where there is nothing on that side. */
type Pair = readonly [LabEvent | undefined, LabEvent | undefined];

/** The step that an event is of: the same one may come to another number. */
function stepOf({ event }: LabEvent): string {
  return event.replace(/:.*/, "").replaceAll(/[\d.,]+/g, "#");
}

/**
 * Both time lines side by side: steps that were taken in both stand in one row,
 * by the longest common subsequence, and what differs stands in between.
 */
export function alignEvents(
  left: readonly LabEvent[],
  right: readonly LabEvent[],
): Pair[] {
  const [leftSteps, rightSteps] = [left.map(stepOf), right.map(stepOf)];
  // The length of what is common from i and k on.
  const common: number[][] = Array.from(
    { length: left.length + 1 },
    () => new Array(right.length + 1).fill(0),
  );
  const at = (i: number, k: number): number => common[i]?.[k] ?? 0;
  for (let i = left.length - 1; i >= 0; i--) {
    for (let k = right.length - 1; k >= 0; k--) {
      const row = common[i] as number[];
      row[k] = leftSteps[i] === rightSteps[k]
        ? at(i + 1, k + 1) + 1
        : Math.max(at(i + 1, k), at(i, k + 1));
    }
  }
  const pairs: Pair[] = [];
  let waiting: [LabEvent[], LabEvent[]] = [[], []];
  const flush = (): void => {
    const [a, b] = waiting;
    for (let n = 0; n < Math.max(a.length, b.length); n++) {
      pairs.push([a[n], b[n]]);
    }
    waiting = [[], []];
  };
  let i = 0;
  let k = 0;
  while (i < left.length || k < right.length) {
    const [a, b] = [left[i], right[k]];
    if (a !== undefined && leftSteps[i] === rightSteps[k]) {
      flush();
      pairs.push([a, b]);
      i++;
      k++;
    } else if (a !== undefined && (!b || at(i + 1, k) >= at(i, k + 1))) {
      waiting[0].push(a);
      i++;
    } else if (b !== undefined) {
      waiting[1].push(b);
      k++;
    }
  }
  flush();
  return pairs;
}

function isSame([left, right]: Pair): boolean {
  return left?.event === right?.event;
}

const CELL = 29;
const HEAD = 9;
const CLOCK = 7;

/** A time as narrow as it can be without being vague. */
function clock(ms: number): string {
  if (ms >= 100 || ms === 0) return String(Math.round(ms));
  return ms.toFixed(ms < 10 ? 2 : 1);
}

function timeLine(
  left: LabSide,
  right: LabSide,
  columns: readonly [string, string],
): string {
  const cell = (event: LabEvent | undefined): string[] =>
    event === undefined
      ? []
      : fold(event.event, CELL).map((line, i) =>
        `${(i === 0 ? clock(event.at_ms) : "").padStart(CLOCK)} ${
          line.padEnd(CELL)
        }`
      );
  const blank = "".padEnd(CLOCK + 1 + CELL);
  const heading = `     ms ${columns[0].padEnd(CELL)} │      ms ${
    columns[1]
  }\n`;
  return heading + alignEvents(left.events, right.events).map((pair) => {
    const [a, b] = [cell(pair[0]), cell(pair[1])];
    const rows = Math.max(a.length, b.length);
    return Array.from(
      { length: rows },
      (_, i) =>
        `${a[i] ?? blank} ${isSame(pair) ? "│" : "┃"} ${b[i] ?? ""}`.trimEnd() +
        "\n",
    ).join("");
  }).join("");
}

/** The name of a figure in words. */
function nameOf(name: string): string {
  return name.replaceAll("_", " ").replaceAll(/\bus\b/g, "µs");
}

const LONGEST_CELL = 17;

/** A figure as a cell. */
function cellOf(name: string, figure: Figure | undefined): string {
  if (figure === undefined) return "";
  if (figure === null) return name.endsWith("_ms") ? "never" : "-";
  if (typeof figure === "boolean") return figure ? "yes" : "no";
  return typeof figure === "number" ? short(figure) : String(figure);
}

function isSeries(figure: Figure | undefined): figure is Series {
  return Array.isArray(figure) && typeof figure[0] === "number";
}

function isTable(figure: Figure | undefined): figure is readonly FigureRow[] {
  return Array.isArray(figure) && typeof figure[0] === "object";
}

function namesOf(rows: readonly object[]): string[] {
  return [...new Set(rows.flatMap(Object.keys))];
}

/** The figures of both sides as the rows of a table, its head first. */
export function figureRows(run: LabRun): string[][] {
  const { without_guard: a, with_guard: b } = run.result;
  const sides = [a.figures, b.figures];
  const rows = namesOf(sides).flatMap((name) => {
    const figures = sides.map((side) => side[name]);
    if (figures.some(Array.isArray)) return [];
    if (figures.every((figure) => figure === undefined || figure === null)) {
      return [];
    }
    const cells = figures.map((figure) => cellOf(name, figure));
    // A long text is an error; the time line has it, and has room for it.
    return cells.some(({ length }) => length > LONGEST_CELL)
      ? []
      : [[nameOf(name), ...cells]];
  });
  return [["", ...columnsOf(run.lab)], ...rows];
}

/** Rows of both sides that make up one table, such as the points of a sweep. */
function tablesOf(run: LabRun): (readonly FigureRow[])[] {
  const { without_guard: a, with_guard: b } = run.result;
  return namesOf([a.figures, b.figures]).flatMap((name) => {
    const rows = [a.figures[name], b.figures[name]].flatMap((figure) =>
      isTable(figure) ? figure : []
    );
    return rows.length > 0 ? [rows] : [];
  });
}

/** The tables of a run, each with its head first. */
export function figureTables(run: LabRun): string[][][] {
  return tablesOf(run).map((rows) => {
    const names = namesOf(rows).filter((name) =>
      rows.every((row) => !Array.isArray(row[name]))
    );
    return [
      names.map(nameOf),
      ...rows.map((row) => names.map((name) => cellOf(name, row[name]))),
    ];
  });
}

/** What is drawn in one chart: one figure of several runs or policies. */
interface Drawing {
  readonly name: string;
  readonly lines: readonly {
    readonly label: string;
    readonly values: Series;
  }[];
}

function drawingsOf(run: LabRun): Drawing[] {
  const { without_guard, with_guard } = run.result;
  const [left, right] = columnsOf(run.lab);
  const sides = [
    { label: left, figures: without_guard.figures },
    { label: right, figures: with_guard.figures },
    ...tablesOf(run).flat().map((row) => ({
      label: String(Object.values(row)[0]),
      figures: row,
    })),
  ];
  return namesOf(sides.map(({ figures }) => figures)).flatMap((name) => {
    const lines = sides.flatMap(({ label, figures }) => {
      const values = figures[name];
      return isSeries(values) ? [{ label, values }] : [];
    });
    return lines.length > 0 ? [{ name, lines }] : [];
  });
}

/** The series of a run as blocks, those of one figure to one scale. */
export function drawings(run: LabRun): string {
  return drawingsOf(run).flatMap(({ name, lines }) => {
    const most = Math.max(...lines.map(({ values }) => Math.max(...values)));
    return lines.map(({ label, values }) =>
      [
        `${nameOf(name)}: ${label}; 0 to ${
          short(values.length / 10)
        } s, up to ${short(Math.max(...values))}`,
        // What is low needs fewer lines, and no empty ones above it.
        ...peaks(values, most).filter((line) => line !== ""),
        "",
      ].join("\n")
    );
  }).join("\n");
}

/**
 * A case that was run, for a terminal. Whoever has predicted something has seen
 * the question already, and is told whether it was right.
 */
export function runText(run: LabRun, prediction?: number): string {
  const { lab, result } = run;
  const [left, right] = columnsOf(lab);
  const { without_guard: a, with_guard: b, guard } = result;
  const drawn = drawings(run);
  const said = prediction === undefined
    ? "Answer: "
    : prediction === run.answer
    ? "You are right: "
    : `You said ${letterOf(prediction)}, and it is `;
  return (prediction === undefined
    ? `${questionText(lab, run.settings)}\n`
    : "") +
    `${timeLine(a, b, columnsOf(lab))}\n` +
    table(figureRows(run)) + "\n" +
    figureTables(run).map((rows) => `${table(foldHead(rows, HEAD))}\n`).join(
      "",
    ) +
    (drawn === "" ? "" : `${drawn}\n`) +
    wrap(`${capital(left)}: ${a.outcome}.`, "") +
    wrap(`${capital(right)}: ${b.outcome}.`, "") + "\n" +
    wrap(
      `${said}${letterOf(run.answer)}) ${choicesOf(lab)[run.answer] ?? ""}.`,
      "",
    ) + wrap(result.explanation, "") +
    (run.isShown ? "" : "\n" +
      wrap(alikeText(run), "")) +
    `\nGuard:  ${guard.symbol} in ${guard.file}\n` +
    (isAltered(run)
      ? `Before: deno task lab ${lab.name}\n` +
        wrap("is the same as it stands, to compare with.", "        ")
      : `Try:    ${experimentOf(lab)}\n` +
        wrap(`and look at ${lab.experiment.look}.`, "        "));
}

/** Whether something was changed already. */
function isAltered({ lab, settings, usedServer }: LabRun): boolean {
  const standard = settingsOf(lab);
  return usedServer && lab.experiment.flag.startsWith("--db") ||
    (Object.keys(standard) as SettingName[])
      .some((name) => settings[name] !== standard[name]);
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What a learner predicted, by the names of the cases. */
export type Predictions = ReadonlyMap<string, number>;

/** The cases that were run as a table, and how many showed a difference. */
export function scoreText(
  runs: readonly LabRun[],
  predictions: Predictions,
): string {
  const isAsked = predictions.size > 0;
  const rows = runs.map((run) => [
    run.lab.name,
    run.isShown ? "yes" : "no",
    ...(isAsked
      ? [predictions.get(run.lab.name) === run.answer ? "right" : "wrong"]
      : []),
  ]);
  const { shown, cases, predicted } = scoreOf(runs, predictions);
  return table([
    ["case", "guard made a difference", ...(isAsked ? ["predicted"] : [])],
    ...rows,
  ]) + `\nScore: ${shown} of ${cases} guards made a difference` +
    (isAsked ? `; ${predicted} of ${predictions.size} predicted.\n` : ".\n");
}

function scoreOf(
  runs: readonly LabRun[],
  predictions: Predictions,
): { shown: number; cases: number; predicted: number } {
  const isRight = (run: LabRun): boolean =>
    predictions.get(run.lab.name) === run.answer;
  return {
    shown: runs.filter(({ isShown }) => isShown).length,
    cases: runs.length,
    predicted: runs.filter(isRight).length,
  };
}

/** All cases with the score, for machines. */
export function allJson(runs: readonly LabRun[]): Record<string, unknown> {
  const { shown, cases } = scoreOf(runs, new Map());
  return {
    cases: runs.map(({ result }) => result),
    score: { shown, cases },
  };
}

const FLOOR = 0.5;

function chartsOf(run: LabRun, draw: Draw): string {
  return drawingsOf(run).map(({ name, lines }) => {
    const length = Math.max(...lines.map(({ values }) => values.length));
    return draw(nameOf(name), {
      xAxis: {
        ...{ type: "category", name: "s" },
        data: Array.from({ length }, (_, i) => short(i / 10)),
      },
      yAxis: { type: "log", min: FLOOR },
      series: lines.map(({ label, values }) => ({
        ...{ name: label, type: "line", symbol: "none" },
        lineStyle: { width: 1.2 },
        // A logarithm has no place for 0.
        data: values.map((value) => Math.max(value, FLOOR)),
      })),
    });
  }).join("");
}

function section(run: LabRun, draw: Draw | undefined): string {
  const { lab, result } = run;
  const { without_guard: a, with_guard: b, guard } = result;
  const [left, right] = columnsOf(lab);
  const cells = (event: LabEvent | undefined): string =>
    event === undefined
      ? '<td class="at"></td><td></td>'
      : `<td class="at">${clock(event.at_ms)}</td><td>${
        escape(event.event)
      }</td>`;
  const rows = alignEvents(a.events, b.events).map((pair) =>
    `<tr${isSame(pair) ? "" : ' class="differs"'}>${cells(pair[0])}${
      cells(pair[1])
    }</tr>\n`
  ).join("");
  const charted = draw === undefined ? "" : chartsOf(run, draw);
  return `<section id="${escape(lab.name)}">
<h2>${escape(result.title)}</h2>
<p><code>${escape(lab.name)}</code></p>
<p><b>Assumed:</b> ${escape(result.assumption)}</p>
<p>${escape(questionOf(lab, run.settings))}</p>
<ol type="a">${
    choicesOf(lab).map((choice, i) =>
      `<li>${
        i === run.answer ? `<b>${escape(choice)}</b>` : escape(choice)
      }</li>`
    ).join("")
  }</ol>
<div class="wide"><table class="line"><thead><tr><th>ms</th><th>${
    escape(left)
  }</th><th>ms</th><th>${escape(right)}</th></tr></thead><tbody>
${rows}</tbody></table></div>
<p class="${lab.holds(a.figures) ? "advice" : "wrong"}"><b>${
    escape(capital(left))
  }:</b> ${escape(a.outcome)}.</p>
<p class="${lab.holds(b.figures) ? "advice" : "wrong"}"><b>${
    escape(capital(right))
  }:</b> ${escape(b.outcome)}.</p>
${charted}${
    [figureRows(run), ...figureTables(run)].map(htmlTable).join("")
  }<p>${escape(result.explanation)}</p>
${run.isShown ? "" : `<p>${alikeText(run)}</p>\n`}<p>The guard is <code>${
    escape(guard.symbol)
  }</code> in <code>${escape(guard.file)}</code>. ${
    isAltered(run)
      ? `As it stands: <code>deno task lab ${escape(lab.name)}</code>.`
      : `Try <code>${escape(experimentOf(lab))}</code> and look at ${
        escape(lab.experiment.look)
      }.`
  }</p>
</section>
`;
}

/** Cases that were run as one page of HTML. */
export async function labHtml(
  runs: readonly LabRun[],
  command: string,
): Promise<string> {
  // What draws is downloaded when it is first used, so only where it is needed.
  const isDrawn = runs.some((run) => drawingsOf(run).length > 0);
  const draw = isDrawn ? await loadCharts() : undefined;
  const contents = runs.length > 1
    ? `<ul>${
      runs.map(({ lab }) =>
        `<li><a href="#${lab.name}">${escape(lab.title)}</a></li>`
      ).join("")
    }</ul>\n`
    : "";
  const { shown, cases } = scoreOf(runs, new Map());
  const score = runs.length > 1
    ? `<p>${shown} of ${cases} guards made a difference.</p>\n`
    : "";
  const body =
    `<p>Each case runs the same steps twice: without a guard, on a pool as ` +
    `one writes it on the first day (the specimen), and with it. Rows that ` +
    `differ are marked.</p>\n${contents}${score}` +
    runs.map((run) => section(run, draw)).join("");
  return page("The lab: break it, and see why", body, command);
}

/** What was found about a learner's pool, for a terminal. */
export function checkText(report: CheckReport): string {
  const { className, file, checks } = report;
  const held = checks.filter(({ isHeld }) => isHeld).length;
  const failed = checks.find(({ isHeld, test }) => !isHeld && test.lab);
  return clean(`${className || "The pool"} in ${file}`) + "\n\n" +
    checks.map(({ test, isHeld, seen }) =>
      `  ${isHeld ? "holds" : "FAILS"}  ${
        test.name.padEnd(24)
      }  ${test.title}\n` +
      (isHeld ? "" : wrap(`Seen: ${clean(seen)}.`, "         ") +
        wrap(`Needed: ${test.demand}`, "         "))
    ).join("") +
    `\n${held} of ${checks.length} hold.\n` +
    (held === checks.length
      ? "Done: it bears all that was tried on it.\n"
      : failed === undefined
      ? ""
      : `To see one of them at work: deno task lab ${failed.test.name}\n`);
}

/** The same for machines. */
export function checkJson(report: CheckReport): Record<string, unknown> {
  const { className, file, checks } = report;
  return {
    ...{ file, class: className },
    checks: checks.map(({ test, isHeld, seen, side }) => ({
      ...{ case: test.name, title: test.title, held: isHeld, seen },
      ...{ events: side?.events ?? [], figures: side?.figures ?? {} },
    })),
    held: checks.filter(({ isHeld }) => isHeld).length,
    of: checks.length,
  };
}
