/**
 * A page of HTML that is readable offline: without scripts, its charts drawn by
 * Apache ECharts as SVG. That is loaded only when a chart is asked for.
 *
 * @module
 */

import { messageOf } from "./errors.ts";

/** The package that draws the charts, and its versions. */
export const CHARTS_SPECIFIER = "npm:echarts@6";

interface Chart {
  setOption(option: Record<string, unknown>): void;
  renderToSVGString(): string;
  dispose(): void;
}

interface Charts {
  init(
    element: null,
    theme: null,
    options: Record<string, unknown>,
  ): Chart;
}

export type Draw = (title: string, option: Record<string, unknown>) => string;

export async function loadCharts(): Promise<Draw> {
  let charts: Charts;
  try {
    // Not a literal, as it is to be loaded only when a page is asked for.
    const name: string = `${CHARTS_SPECIFIER}/dist/echarts.esm.min.mjs`;
    charts = await import(name) as Charts;
  } catch (error) {
    throw new Error(
      `Cannot load '${CHARTS_SPECIFIER}', which draws the charts and is ` +
        `downloaded when it is first used: ${messageOf(error)}`,
      { cause: error },
    );
  }
  return (title, option) => {
    const size = { width: 860, height: 340 };
    const chart = charts.init(null, null, {
      ...{ renderer: "svg", ssr: true },
      ...size,
    });
    chart.setOption({
      ...{ animation: false, legend: { top: 4 } },
      grid: { left: 60, right: 60, top: 40, bottom: 50 },
      ...option,
    });
    const svg = chart.renderToSVGString();
    chart.dispose();
    return `<figure><figcaption>${escape(title)}</figcaption>${svg}</figure>\n`;
  };
}

export function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;").replaceAll('"', "&quot;").replaceAll("'", "&#39;");
}

export function htmlTable(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const cells = (row: readonly string[], tag: string): string =>
    `<tr>${
      row.map((cell) => `<${tag}>${escape(cell)}</${tag}>`).join("")
    }</tr>\n`;
  return `<div class="wide"><table><thead>${cells(head, "th")}</thead><tbody>${
    body.map((row) => cells(row, "td")).join("")
  }</tbody></table></div>\n`;
}

export function page(title: string, body: string, command: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escape(title)}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; color: #1d2433; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #dde1ea; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; } svg { max-width: 100%; height: auto; }
pre { background: #f3f5f9; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.advice { border-left: 4px solid #3a7d44; padding-left: 1rem; }
.wrong { border-left: 4px solid #b3423a; padding-left: 1rem; }
.line { width: 100%; table-layout: fixed; margin: 1rem 0; }
.line th, .line td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.line th:nth-child(odd), .line td.at { width: 4rem; text-align: right; color: #667085; }
.wide + .wide { margin-top: 1rem; }
@media (max-width: 600px) {
  .line th:nth-child(odd), .line td.at { width: 2.6rem; }
  .line th, .line td { padding: .2rem; font-size: .75rem; }
  table:not(.line) td, table:not(.line) th { white-space: normal; padding: .2rem .3rem; }
  figure { overflow-x: auto; } svg { min-width: 640px; }
}
.line .differs { background: #fdf3d8; }
</style>
</head>
<body>
<h1>${escape(title)}</h1>
${body}<h2>The same again</h2>
<pre>${escape(command)}</pre>
</body>
</html>
`;
}
