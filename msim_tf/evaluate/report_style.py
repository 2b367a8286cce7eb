"""The style sheet of the report: one page, no external host, light and dark, desktop and phone, and paper."""

STYLE = """
:root { color-scheme: light dark;
  --page: #fcfcfb; --card: #ffffff; --ink: #1b1f24; --muted: #5d6571; --line: #e2e5e9; --grid: #d5d9df;
  --accent: #0072b2; --soft: #0072b214; --warn: #a34700; --warn-soft: #d55e0014; --cool: #2b7bba; --warm: #e08214;
  --series-1: #0072b2; --series-2: #d55e00; --series-3: #009e73; --series-4: #b85c93; }
@media (prefers-color-scheme: dark) { :root {
  --page: #101317; --card: #171b20; --ink: #e8eaed; --muted: #9aa4b0; --line: #2a3038; --grid: #39414b;
  --accent: #5cb3e8; --soft: #5cb3e81f; --warn: #ffa257; --warn-soft: #ffa2571a; --cool: #3b8fd1; --warm: #d9801c;
  --series-1: #5cb3e8; --series-2: #ff8a3c; --series-3: #2fc79b; --series-4: #e39bc4; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 56px; }
h1 { font-size: 2rem; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; letter-spacing: -.01em; margin: 64px 0 4px; }
h3 { font-size: 1rem; margin: 32px 0 4px; }
p { margin: 8px 0; max-width: 68ch; }
.lead, .hint, figcaption, .notes, dt { color: var(--muted); }
.hint, .notes, figcaption { font-size: .875rem; }
.notes { margin: 12px 0 0; padding-left: 18px; max-width: 84ch; overflow-wrap: anywhere; }
dl.facts { display: flex; flex-wrap: wrap; gap: 4px 32px; margin: 24px 0 0; font-size: .9rem; }
dl.facts > div { display: flex; gap: 8px; min-width: 0; } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 16px; margin: 32px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px; }
.tile b { display: block; font-size: 1.9rem; line-height: 1.2; font-weight: 650; letter-spacing: -.02em; }
.tile span { display: block; color: var(--muted); font-size: .875rem; }
.scroll { overflow-x: auto; margin: 16px 0 0; border: 1px solid var(--line); border-radius: 12px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 9px 11px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--muted); font-weight: 500; font-size: .8125rem; vertical-align: bottom; }
tbody th { font-weight: 550; }
th:first-child, th.text, td.text { text-align: left; }
td.mark { text-align: center; color: var(--accent); } thead th.mark { text-align: center; }
tr.strong > * { background: var(--soft); }
td small { color: var(--muted); font-size: .8125rem; }
.range { display: block; width: 150px; height: 16px; margin-left: auto; }
.two th, .two td { padding: 8px 7px; font-size: .8125rem; }
.two { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 32px; align-items: start; }
figure { margin: 16px 0 0; } figure svg { width: 100%; height: auto; max-height: 460px; display: block; font-family: inherit; }
table.matrix { table-layout: fixed; min-width: 700px; border-spacing: 3px; border-collapse: separate; }
table.matrix th, table.matrix td { border: 0; padding: 8px 6px; text-align: center; border-radius: 8px; }
table.matrix thead th:first-child { width: 104px; }
table.matrix tfoot th { color: var(--muted); font-weight: 400; font-size: .8125rem; }
table.matrix tbody th { text-align: right; padding-right: 12px; }
table.matrix td { background: color-mix(in oklab, var(--tint) var(--much), var(--card)); line-height: 1.25; }
table.matrix td.own { outline: 2px solid var(--ink); outline-offset: -2px; }
table.matrix td small { display: block; color: inherit; opacity: .8; font-size: .72rem; }
.flag { border-left: 3px solid var(--warn); background: var(--warn-soft); border-radius: 0 8px 8px 0; padding: 8px 14px; margin: 12px 0 0;
  font-size: .9rem; }
.failure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 20px; margin: 16px 0 0; }
.failure header { all: unset; display: flex; flex-wrap: wrap; gap: 4px 20px; align-items: baseline; font-size: .875rem; color: var(--muted); }
.failure header b { color: var(--ink); overflow-wrap: anywhere; }
.members { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 20px; margin-top: 12px; }
.members > div { min-width: 0; }
.members p { margin: 0; font-size: .9rem; overflow-wrap: anywhere; }
.role { font-size: .8125rem; color: var(--muted); }
.members audio { width: 100%; height: 36px; margin-top: 8px; display: block; }
a { color: var(--accent); text-underline-offset: 2px; } a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
footer { color: var(--muted); font-size: .875rem; padding-top: 32px; padding-bottom: 56px; margin-top: 64px; }
@media (max-width: 760px) {
  main, header, footer { padding-left: 16px; padding-right: 16px; } header { padding-top: 32px; } h1 { font-size: 1.6rem; }
  .two, .members { grid-template-columns: minmax(0, 1fr); } .members { gap: 14px; } th, td { padding: 8px 10px; }
  dl.facts { flex-direction: column; } .tiles { grid-template-columns: 1fr 1fr; gap: 12px; }
  .tile { padding: 14px 16px; } .tile b { font-size: 1.45rem; } }
@media print { body { background: white; } .scroll { overflow: visible; } .failure, figure, .scroll { break-inside: avoid; }
  .members audio { display: none; } }
"""
