"""The style sheet of a page: quiet, for screens of any width, light or dark, and for paper."""

from sluice.pipelines.report.palette import chart_rules, variables

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
 font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 24px 64px}
h1,h2,h3{line-height:1.25;margin:0;font-weight:600;text-wrap:balance}
h1{font-size:28px;letter-spacing:-.01em}
h2{font-size:19px;margin:52px 0 20px;padding-top:18px;border-top:2px solid var(--ink)}
h3{font-size:15px}
p{margin:0}
.eyebrow{font-size:13px;color:var(--muted);margin-bottom:6px}
.subtitle{color:var(--muted);margin-top:8px;max-width:72ch;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:24px 28px;margin:32px 0 0}
.figures div{border-top:1px solid var(--line);padding-top:10px;min-width:0}
.figures dt{font-size:13px;color:var(--muted)}
.figures dd{margin:0}
.figures .value{font-size:25px;line-height:1.25;font-weight:600;letter-spacing:-.01em;overflow-wrap:anywhere;
 font-variant-numeric:tabular-nums}
.figures .note{font-size:13px;color:var(--muted)}
.sections{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));
 gap:36px 32px;align-items:start}
section{min-width:0;break-inside:avoid}
section.wide{grid-column:1/-1}
section>p{font-size:13.5px;color:var(--muted);margin-top:4px;max-width:72ch;overflow-wrap:anywhere}
figure{margin:10px 0 0}
.chart svg{display:block;width:100%;height:auto;overflow:visible}
.chart text{font-family:inherit}
.chart .narrow{display:none}
.scroll{overflow-x:auto;margin-top:10px}
table{border-collapse:collapse;font-size:13px;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0;border-bottom:1px solid var(--line)}
th{font-weight:500;color:var(--muted);white-space:nowrap}
.w{white-space:nowrap}
td.long{overflow-wrap:anywhere;min-width:13em}
.number{text-align:right;white-space:nowrap}
td:last-child,th:last-child{padding-right:0}
details{margin-top:10px;font-size:13px}
details .scroll{clear:both}
summary{cursor:pointer;color:var(--muted)}
section .get{float:right;margin-top:10px}
section .scroll+.get{float:none}
.get{font-size:13px;color:var(--muted)}
a{color:var(--s1);text-underline-offset:2px}
summary:focus-visible,a:focus-visible{outline:2px solid var(--s1);outline-offset:2px}
footer{margin-top:56px;padding-top:14px;border-top:1px solid var(--line);font-size:13px;color:var(--muted)}
footer p+p{margin-top:6px}
@media (max-width:640px){
 main{padding:24px 16px 48px}
 h1{font-size:23px}
 h2{margin-top:40px}
 .figures{grid-template-columns:1fr 1fr;gap:18px 20px}
 .figures .value{font-size:20px}
 .chart .broad{display:none}
 .chart .narrow{display:block}
}
@media print{
 @page{margin:14mm}
 body{font-size:11pt}
 main{max-width:none;padding:0}
 h2,h3{break-after:avoid}
 .get,details{display:none}
 .scroll{overflow:visible}
 table{font-size:8.5pt}
 th,th.number{white-space:normal}
 th,td{padding-right:9px}
 a{color:inherit;text-decoration:none}
}
"""


def style() -> str:
    """Returns the style sheet. Paper is always light."""
    light, dark = variables(dark=False), variables(dark=True)
    themes = f":root{{color-scheme:light dark;{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return themes + _RULES + chart_rules()
