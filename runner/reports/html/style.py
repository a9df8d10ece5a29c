"""The page's style: readable at phone width, in the dark, in grey and on paper."""

from runner.reports.html.markup import Html, joined, tag

CSS = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --muted: #57606a; --rule: #d0d7de; --soft: #f3f5f7;
  --strong: #0b4f8a; --fill: #b9d6ee; --warm: #f2d6a2; --on-strong: #fff; --link: #0b4f8a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181d; --text: #e6e9ec; --muted: #a3acb5; --rule: #3b434c;
  --soft: #1d2329; --strong: #8cc4f2; --fill: #2c4a63; --warm: #6b5426; --on-strong: #0d1117; --link: #8cc4f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 0 10px 40px; max-width: 1180px; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1.2rem 0 .4rem; }
h2 { font-size: 1.35rem; margin: 2.2rem 0 .4rem; padding-top: .6rem; border-top: 2px solid var(--rule); }
h3 { font-size: 1.15rem; margin: 1.8rem 0 .4rem; }
h4 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, li, dd { max-width: 75ch; }
a { color: var(--link); }
nav ul { columns: 2 260px; padding-left: 1.2rem; margin: .4rem 0; }
nav li { break-inside: avoid; }
ul { padding-left: 1.2rem; }
.muted, figcaption { color: var(--muted); }
.answer { font-weight: 600; }
.findings { columns: 2 400px; column-gap: 2.2rem; } .findings li { break-inside: avoid; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; font-size: .9rem; }
dt { color: var(--muted); } dd { margin: 0; min-width: 0; }
details { margin: .2rem 0; } summary { cursor: pointer; padding: .25rem 0; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .2rem 0; color: var(--muted); max-width: min(75ch, 92vw); }
th, td { padding: .2rem .5rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
tbody th, th:first-child, .text { text-align: left; font-weight: 400; }
tbody td { white-space: nowrap; } tbody td.text, tbody th { white-space: normal; min-width: 8rem; }
thead th { font-weight: 600; border-bottom: 2px solid var(--rule); vertical-align: bottom; }
.matrices { display: flex; flex-wrap: wrap; gap: .4rem 2rem; align-items: flex-start; }
.matrix td, .matrix th { text-align: center; min-width: 2.2rem; border: 1px solid var(--rule); }
.matrix caption { max-width: 20rem; }
.figures { columns: 3 330px; column-gap: 2.2rem; margin-top: .8rem; }
figure { margin: 0 0 1.8rem; min-width: 0; max-width: 440px; break-inside: avoid; }
figcaption { font-size: .85rem; margin-bottom: .4rem; } figcaption b { color: var(--text); }
.quantiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: .8rem; }
.quantiles figure { max-width: 150px; margin: 0; }
.quantiles figcaption { font-size: .7rem; line-height: 1.25; margin: .1rem 0 0;
  overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg.defs { position: absolute; width: 0; height: 0; }
text { font-size: 11px; fill: var(--text); } .row { font-size: 10.5px; } .small { font-size: 10px; }
.tiny { font-size: 9px; fill: var(--muted); }
.group { font-weight: 700; font-size: 12px; } .value { font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: .7; }
.whisker, .boundary { stroke: var(--text); stroke-width: 1; } .boundary { stroke-width: 1.6; }
.box { fill: var(--fill); stroke: var(--strong); stroke-width: 1; } .median { stroke: var(--text); stroke-width: 2.4; }
.outlier, .sample, .estimate, .tied { fill: none; stroke-linecap: round; stroke: var(--strong); stroke-width: 2.6; }
.estimate { stroke: var(--text); stroke-width: 7; } .tied { stroke: var(--text); stroke-width: 5; }
.tie { stroke: var(--muted); stroke-width: 2; } .fit { stroke: var(--text); stroke-width: 1; stroke-dasharray: 4 2; }
.mark { fill: var(--ground); fill-opacity: .6; stroke: var(--muted); stroke-width: 1.5; }
.mark.best { fill: var(--strong); fill-opacity: 1; stroke: var(--strong); }
.front { fill: none; stroke: var(--strong); stroke-width: 1.4; stroke-dasharray: 6 3; }
.name { paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
.target { fill: var(--fill); fill-opacity: .25; stroke: var(--text); stroke-width: 1; stroke-dasharray: 1.5 2.5; }
.leader { stroke: var(--text); stroke-width: 1; stroke-dasharray: 1.5 2.5; }
.part { stroke: var(--text); stroke-width: .6; } .on-part { fill: var(--on-strong); }
.compute { fill: var(--strong); } .transmission { fill: url(#hatch-transmission); }
.preprocess { fill: url(#dots-preprocess); } .postprocess { fill: url(#lines-postprocess); }
.serialise { fill: url(#lines-serialise); }
.ink { stroke: var(--text); fill: none; stroke-width: 1; }
.spot { fill: var(--text); } .paper { fill: var(--ground); } .warm { fill: var(--warm); }
@media print { body { font-size: 10pt; max-width: none; } nav { display: none; } .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; height: auto; } tr, figure { break-inside: avoid; }
  tbody td { white-space: normal; } h2, h3, h4 { break-after: avoid; } }
"""


def patterns() -> Html:
    """Return fills that differ without colour; the figures refer to them by id."""
    return tag(
        "svg",
        tag(
            "defs",
            _pattern("hatch-transmission", "warm", "M-1 1l2 -2M0 6l6 -6M5 7l2 -2", "ink"),
            _pattern("lines-postprocess", "paper", "M1.5 0v6M4.5 0v6", "ink"),
            _pattern("lines-serialise", "paper", "M0 1.5h6M0 4.5h6", "ink"),
            _pattern("dots-preprocess", "paper", "M1 1h1.4v1.4h-1.4zM4 4h1.4v1.4h-1.4z", "spot"),
        ),
        class_="defs",
        aria_hidden="true",
    )


def _pattern(name: str, ground: str, path: str, ink: str) -> Html:
    return tag(
        "pattern",
        joined(tag("rect", width="6", height="6", class_=ground), tag("path", d=path, class_=ink)),
        id=name,
        width="6",
        height="6",
        patternUnits="userSpaceOnUse",
    )
