/** Style of the page that plays a session; light and dark, by the reader's own setting. */
export const SESSION_STYLE = `:root {
  color-scheme: light dark;
  --ground: light-dark(#fbfbfa, #16181b);
  --panel: light-dark(#fff, #1e2125);
  --ink: light-dark(#1b1d20, #e8e9ea);
  --quiet: light-dark(#565b62, #a9afb7);
  --line: light-dark(#d9dbde, #363b41);
  --bad: light-dark(#a3160b, #ff9a8f);
  --good: light-dark(#14642b, #7fd69a);
  --link: light-dark(#0b4fa3, #8fbfff);
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0;
  padding: 1rem 1.25rem 2rem;
  background: var(--ground);
  color: var(--ink);
  font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif;
}
header { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; margin-bottom: .75rem; }
h1 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; unicode-bidi: isolate; }
header p { margin: 0; color: var(--quiet); }
main { display: grid; grid-template-columns: minmax(0, 1fr) 24rem; gap: 1.25rem; align-items: start; }
@media (max-width: 60rem) { main { grid-template-columns: minmax(0, 1fr); } }
section, aside { min-width: 0; }
#terminal { border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
#controls { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; margin: .5rem 0 1rem; color: var(--quiet); }
select, button { font: inherit; color: var(--ink); background: var(--panel); border: 1px solid var(--line); border-radius: 4px; padding: .1rem .4rem; }
button { cursor: pointer; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
aside { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .25rem 1rem .75rem; }
h2 { font-size: .95rem; margin: .7rem 0 .2rem; }
dl { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr); gap: .15rem .6rem; margin: 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; unicode-bidi: isolate; white-space: pre-wrap; }
dd.code, td.code { font-family: "DejaVu Sans Mono", ui-monospace, monospace; font-size: .87em; }
.bad { color: var(--bad); }
.good { color: var(--good); }
.note { color: var(--quiet); font-size: .9em; margin: .4rem 0 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; max-height: 24rem; border: 1px solid var(--line); border-radius: 6px; background: var(--panel); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: start; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; unicode-bidi: isolate; }
th { position: sticky; top: 0; background: var(--panel); color: var(--quiet); font-weight: 600; white-space: nowrap; }
td.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
`
