/**
 * Results for people: tables for a terminal of 80 columns, and one page of HTML
 * that is readable offline. And for machines: the JSON that `--json` prints.
 *
 * @module
 */

import {
  type Finding,
  nameOf,
  type Recommendation,
  type TheoryRow,
} from "./diagnosis.ts";
import { type Draw, escape, htmlTable, loadCharts, page } from "./page.ts";
import type { RetryResult } from "./retry_models.ts";
import type { PointResult, SimulationResult } from "./simulate.ts";
import {
  bar,
  clean,
  percent,
  short,
  sparkline,
  table,
  wrap,
} from "./terminal.ts";

/** A simulation and all that is said about it. */
export interface Report {
  readonly result: SimulationResult;
  readonly theory: readonly TheoryRow[];
  readonly findings: readonly Finding[];
  readonly recommendation: Recommendation | null;
  /** The command that gives it again. */
  readonly command: string;
}

/** The keys of `--json`, documented in the README. */
export function simulationJson(report: Report): Record<string, unknown> {
  const { result, theory, findings, recommendation, command } = report;
  const { requests, wallMs } = result;
  return {
    scenario: result.plan.scenario,
    points: result.points,
    theory,
    diagnosis: findings,
    recommendation,
    command,
    requests_per_wall_second: Math.round(requests / wallMs * 1000),
  };
}

/** Rows of a table, whatever shows it: its head comes first. */
function pointRows(points: readonly PointResult[]): string[][] {
  return [
    [
      ...["point", "served/s", "lost", "in use", "P(wait)"],
      ...["wait", "p99", "latency", "±95%", "p95", "p99"],
    ],
    ...points.map((point) => [
      nameOf(point).replace("pool size", "size").replace(
        "acquire timeout",
        "timeout",
      ),
      short(point.throughput_per_s),
      percent((point.offered - point.served) / (point.offered || 1)),
      percent(point.utilization),
      short(point.wait_probability),
      short(point.wait_ms.mean),
      short(point.wait_ms.p99),
      short(point.latency_ms.mean),
      short(point.confidence_95.latency_ms["mean"]),
      short(point.latency_ms.p95),
      short(point.latency_ms.p99),
    ]),
  ];
}

function theoryRows(theory: readonly TheoryRow[]): string[][] {
  return [
    ["point", "formula", "figure", "theory", "simulated", "SE"],
    ...theory.filter(({ quantity }) => quantity !== undefined).map((row) => [
      row.point,
      row.model,
      row.quantity ?? "",
      short(row.theory),
      short(row.simulated),
      row.standard_errors === null || row.standard_errors === undefined
        ? "-"
        : row.standard_errors.toFixed(1),
    ]),
  ];
}

function misfits(theory: readonly TheoryRow[]): string[] {
  return [
    ...new Set(
      theory.filter(({ quantity }) => quantity === undefined).map(({ model }) =>
        model
      ),
    ),
  ];
}

/** A simulation for a terminal. */
export function simulationText(report: Report): string {
  const { result, theory, findings, recommendation } = report;
  const { plan, points, requests, wallMs } = result;
  const { name, arrivals, service } = plan;
  const rate = Math.round(requests / wallMs * 1000).toLocaleString("en");
  let text = `${name ? `${clean(name)}: ` : ""}${
    arrivals.map(({ text }) => clean(text)).join(" + ")
  }, each ${clean(service.text)}; ${requests.toLocaleString("en")} requests\n`;
  text += `Times in ms; lost is whatever was not served.\n\n`;
  text += table(pointRows(points)) + "\n";
  if (points.length > 1) {
    const most = Math.max(...points.map(({ latency_ms }) => latency_ms.p99));
    text += `Latency, p99\n`;
    text += table(points.map((point) => [
      nameOf(point),
      short(point.latency_ms.p99),
    ])).trimEnd().split("\n").map((line, i) =>
      `${line}  ${bar(points[i]?.latency_ms.p99 ?? 0, most, 40)}\n`
    ).join("") + "\n";
  } else {
    const { time_line } = points[0] as PointResult;
    const until = time_line.interval_ms * time_line.busy.length / 1000;
    for (const series of ["arrivals", "busy", "waiting", "failures"] as const) {
      const most = Math.max(...time_line[series]);
      text += `${series.padEnd(9)}${sparkline(time_line[series])} ${
        short(most)
      }\n`;
    }
    text += `         0 to ${short(until)} s, and the highest value\n\n`;
  }
  const rows = theoryRows(theory);
  if (rows.length > 1) {
    text += "Theory beside it (SE: the difference in standard errors)\n" +
      table(rows) + "\n";
  }
  for (const why of misfits(theory)) text += wrap(`Theory: ${why}`, "");
  text += "Diagnosis\n";
  for (const { point, kind, text: says } of findings) {
    text += wrap(`${point}: ${kind}. ${says}.`, "  ");
  }
  if (recommendation !== null) {
    text += "\nRecommendation\n" + wrap(`${recommendation.text}.`, "  ");
  }
  return `${text}\n${rate} requests simulated a second\n`;
}

function retryRows(result: RetryResult): string[][] {
  const { model } = result;
  const seconds = (ms: number | null): string =>
    ms === null ? "never" : short(ms / 1000);
  const head = {
    contention: ["attempts", "each", "done after, s"],
    reconnect: [
      "attempts",
      "each",
      "each while down",
      "peak/100ms",
      "drain, s",
    ],
    overload: ["attempts", "each", "peak/100ms", "recovered after, s"],
  }[model];
  return [
    ["policy", ...head],
    ...result.policies.map((row) => {
      const common = [
        row.policy,
        short(row.attempts),
        short(row.attempts_per_client),
      ];
      if (model === "contention") {
        return [...common, seconds(row.completion_ms)];
      }
      return [
        ...common,
        ...(model === "reconnect"
          ? [short(row.attempts_while_down_per_client)]
          : []),
        short(row.peak_per_100ms),
        seconds(row.drain_ms),
      ];
    }),
  ];
}

const RETRY_SAYS = {
  contention:
    "Writers of one row, each of whom tries again when another was first. Jitter saves attempts, and the exponent spares one from knowing how many there are.",
  reconnect:
    "All lose their connection at 0; the database is back at 30 s and takes 10 handshakes of 20 ms at a time. Without jitter all come back together; the peak counts from 30 s on.",
  overload:
    "10 connections at load 0.7, attempts that time out after 500 ms and run on all the same, a stall from 30 to 40 s. Backoff alone never lets it recover; a budget does.",
} as const;

/** A retry experiment for a terminal. */
export function retryText(result: RetryResult): string {
  const { model, clients, replications, policies } = result;
  const width = Math.max(...policies.map(({ policy }) => policy.length));
  return `${model}: ${clients} ${
    model === "overload" ? "requests" : "clients"
  }, means of ${replications} replications\n` +
    wrap(RETRY_SAYS[model], "") + "\n" + table(retryRows(result)) +
    "\nAttempts over time, each to its own highest\n" +
    policies.map(({ policy, attempts_per_100ms: line }) =>
      `${policy.padEnd(width)}  ${sparkline(line, Math.max(20, 60 - width))} ${
        short(line.length / 10)
      } s\n`
    ).join("");
}

const COLORS = { p50: "#5470c6", p95: "#fac858", p99: "#ee6666" } as const;

function sweepChart(draw: Draw, report: Report): string {
  const { result: { points }, recommendation } = report;
  const names = points.map(nameOf);
  const best = points.findIndex((point) =>
    recommendation !== null && recommendation.pool_size === point.pool_size &&
    recommendation.max_overflow === point.max_overflow &&
    JSON.stringify(recommendation.settings) === JSON.stringify(point.settings)
  );
  const quantiles = ["p50", "p95", "p99"] as const;
  const half = (point: PointResult, q: typeof quantiles[number]): number =>
    point.confidence_95.latency_ms[q] ?? 0;
  return draw(
    "Latency by point, with 95 % bands; the recommended one is shaded",
    {
      legend: { top: 4, data: [...quantiles] },
      xAxis: { type: "category", data: names },
      yAxis: { type: "log", name: "ms" },
      series: quantiles.flatMap((q) => [
        {
          ...{ name: q, type: "line", color: COLORS[q], symbolSize: 5 },
          data: points.map((point) => point.latency_ms[q] || null),
          ...(q === "p50" && best >= 0
            ? {
              markLine: {
                ...{ symbol: "none", label: { show: false } },
                lineStyle: {
                  color: "rgba(58,125,68,0.35)",
                  width: 22,
                  type: "solid",
                },
                data: [{ xAxis: best }],
              },
            }
            : {}),
        },
        ...[-1, 1].map((sign) => ({
          ...{
            name: `${q} band`,
            type: "line",
            color: COLORS[q],
            symbol: "none",
          },
          lineStyle: { type: "dotted", width: 1 },
          data: points.map((point) =>
            Math.max(0.001, point.latency_ms[q] + sign * half(point, q))
          ),
        })),
      ]),
    },
  );
}

function pointCharts(draw: Draw, point: PointResult): string {
  const { time_line: line, latency_histogram: histogram } = point;
  const seconds = line.busy.map((_, i) => short(i * line.interval_ms / 1000));
  const series = (name: string, data: readonly number[], axis: number) => ({
    ...{ name, data, type: "line", symbol: "none", yAxisIndex: axis },
    lineStyle: { width: 1.2 },
  });
  const total = histogram.reduce((sum, [, count]) => sum + count, 0);
  let seen = 0;
  // The curve of how many were slower: its tail is what percentiles hide.
  const tail = histogram.map(([ms, count]) => {
    seen += count;
    return [Math.max(ms, 0.001), Math.max(1 - seen / total, 0.5 / total)];
  });
  const name = nameOf(point);
  // Nearly all are slower than a hundredth of the median.
  const fromMs = Math.max(point.latency_ms.p50 / 100, 0.001);
  return draw(
    `Time line of ${name}, first replication, in steps of ${line.interval_ms} ms`,
    {
      xAxis: { type: "category", data: seconds, name: "s" },
      yAxis: [
        { type: "value", name: "connections, requests" },
        { type: "value", name: "in each step", splitLine: { show: false } },
      ],
      series: [
        series("busy", line.busy, 0),
        series("waiting", line.waiting, 0),
        series("arrivals", line.arrivals, 1),
        series("attempts", line.attempts, 1),
        series("failures", line.failures, 1),
      ],
    },
  ) + draw(`Latency of ${name}: the part of the requests that was slower`, {
    xAxis: { type: "log", name: "ms" },
    yAxis: { type: "log", name: "part" },
    series: [{
      name: "slower",
      type: "line",
      symbol: "none",
      data: tail.filter(([ms = 0]) => ms >= fromMs),
    }],
  });
}

/** A simulation as one page of HTML. */
export async function simulationHtml(report: Report): Promise<string> {
  const { result, theory, findings, recommendation, command } = report;
  const { plan, points } = result;
  const draw = await loadCharts();
  const shown =
    points.find((point) =>
      recommendation?.pool_size === point.pool_size &&
      recommendation.max_overflow === point.max_overflow
    ) ?? points[0] as PointResult;
  const rows = theoryRows(theory);
  const body = `<p>${
    escape(plan.arrivals.map(({ text }) => text).join(" + "))
  }, each query ${escape(plan.service.text)}, ${
    result.requests.toLocaleString("en")
  } requests through the real pool under virtual time.</p>
${
    recommendation === null
      ? ""
      : `<p class="advice">${escape(recommendation.text)}.</p>\n`
  }<h2>Diagnosis</h2>
<ul>${
    findings.map(({ point, kind, text }) =>
      `<li><b>${escape(point)}: ${escape(kind)}.</b> ${escape(text)}.</li>\n`
    ).join("")
  }</ul>
<h2>Figures</h2>
<p>Times in milliseconds; lost is whatever was not served.</p>
${htmlTable(pointRows(points))}${
    points.length > 1 ? sweepChart(draw, report) : ""
  }${pointCharts(draw, shown)}<h2>Theory</h2>
${rows.length > 1 ? htmlTable(rows) : ""}${
    misfits(theory).map((why) => `<p>${escape(why)}</p>\n`).join("")
  }`;
  return page(plan.name || "What the pool will do", body, command);
}

/** A retry experiment as one page of HTML. */
export async function retryHtml(
  result: RetryResult,
  command: string,
): Promise<string> {
  const draw = await loadCharts();
  const length = Math.max(
    ...result.policies.map(({ attempts_per_100ms: line }) => line.length),
  );
  const chart = draw("Attempts in each 100 ms, first replication", {
    xAxis: {
      type: "category",
      data: Array.from({ length }, (_, i) => short(i / 10)),
      name: "s",
    },
    yAxis: { type: "log", name: "attempts", min: 0.5 },
    series: result.policies.map(({ policy, attempts_per_100ms: line }) => ({
      ...{ name: policy, type: "line", symbol: "none" },
      lineStyle: { width: 1.2 },
      data: line.map((count) => count || null),
    })),
  });
  const body = `<p>${escape(RETRY_SAYS[result.model])}</p>\n${
    htmlTable(retryRows(result))
  }${chart}`;
  return page(`Retries: ${result.model}`, body, command);
}
