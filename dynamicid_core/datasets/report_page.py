"""The page of a training set's report, a template for jinja2 (:mod:`report` fills it in)."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }} - training set</title>
<style>
:root { color-scheme: light dark; --ground: #fafaf8; --card: #fff; --line: #e2e0da; --text: #22242a; --soft: #6c6f78;
  --full: #2a9d74; --made: #4a90d9; --warn: #c9562c; --heat: 42, 157, 116; }
@media (prefers-color-scheme: dark) { :root { --ground: #17181b; --card: #212327; --line: #35383e; --text: #e8e8e6;
  --soft: #9a9da6; --full: #3dbb8c; --made: #6aa9ea; --warn: #ee8058; --heat: 61, 187, 140; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 80px; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 44px 0 8px; } h3 { font-size: 16px; margin: 0; }
p { margin: 4px 0 14px; max-width: 780px; } .soft { color: var(--soft); } code { font-size: 13px; }
nav a { color: var(--soft); margin-right: 16px; text-decoration: none; } nav a:hover { text-decoration: underline; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 18px; min-width: 130px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; font-weight: 600; } .tile span { color: var(--soft); }
.hints { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--warn); border-radius: 8px;
  padding: 10px 18px; margin: 16px 0; } .hints ul { margin: 0; padding-left: 18px; }
table.cells { border-collapse: separate; border-spacing: 5px; margin-left: -5px; width: 100%; table-layout: fixed; }
table.cells th { font-weight: 500; color: var(--soft); font-size: 13px; }
table.cells th.row { width: 92px; text-align: left; color: var(--text); font-size: 14px; }
table.cells td { border: 1px solid var(--line); border-radius: 8px; padding: 7px; height: 72px; vertical-align: middle; }
table.cells td.none { border-style: dashed; color: var(--warn); text-align: center; font-size: 13px; }
.cell { display: flex; gap: 9px; align-items: center; } .cell img { width: 56px; height: 56px; border-radius: 6px; }
.cell b { font-size: 16px; font-weight: 600; } .cell small { display: block; color: var(--soft); line-height: 1.3; }
.people { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 12px; }
.person, .reason { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.person h3 { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.person .tag { float: right; font-size: 12px; border: 1px solid var(--line); border-radius: 20px; padding: 1px 9px;
  color: var(--soft); }
.person .row { display: flex; gap: 12px; margin-top: 8px; align-items: flex-start; }
.mini { display: grid; grid-template-columns: repeat(5, 11px); gap: 2px; flex: none; }
.mini i { width: 11px; height: 11px; border-radius: 2px; background: var(--line); }
.mini i.full { background: var(--full); } .mini i.made { background: var(--made); }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 12px; }
.faces { display: flex; flex-wrap: wrap; gap: 4px; } .faces img { width: 52px; height: 52px; border-radius: 6px; }
.faces img:first-child { width: 76px; height: 76px; }
.merge { display: inline-flex; gap: 14px; align-items: center; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 12px 16px; margin: 0 10px 10px 0; }
.merge figure { margin: 0; text-align: center; font-size: 13px; max-width: 110px; overflow-wrap: anywhere; }
.merge img { width: 84px; height: 84px; border-radius: 8px; display: block; margin: 0 auto 4px; }
.reason { margin-bottom: 12px; } .reason .count { float: right; font-size: 20px; font-weight: 600; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 12px; margin-top: 6px; }
.examples figure { margin: 0; font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
.examples .frame { position: relative; display: inline-block; line-height: 0; }
.examples img { max-width: 100%; max-height: 150px; border-radius: 6px; }
.examples .box { position: absolute; border: 2px solid var(--warn); border-radius: 3px; }
table.plain td { padding: 2px 18px 2px 0; vertical-align: top; overflow-wrap: anywhere; }
table.plain td:first-child { color: var(--soft); white-space: nowrap; }
</style>
</head>
<body>
<h1>{{ name }}</h1>
<nav><a href="#cells">Cells</a><a href="#people">People</a>{% if merges %}<a href="#names">Names</a>{% endif %}
{% if made %}<a href="#filled">Filled</a>{% endif %}<a href="#out">Left out</a><a href="#settings">Settings</a></nav>

<div class="tiles">
<div class="tile"><b>{{ taken }}</b><span>photos taken of {{ photos }}</span></div>
<div class="tile"><b>{{ people }}</b><span>people, {{ validation }} for validation</span></div>
<div class="tile"><b>{{ (100 * cells / all_cells) | round | int if all_cells else 0 }}%</b><span>of cells covered
({{ cells }} of {{ all_cells }})</span></div>
{% for collection, count in collections if collections | length > 1 %}
<div class="tile"><b>{{ count }}</b><span>{{ "filled in" if collection == "filled" else "from " ~ collection }}</span></div>
{% endfor %}
</div>
{% if hints %}
<div class="hints"><ul>{% for hint in hints %}<li>{{ hint }}</li>{% endfor %}</ul></div>
{% endif %}

<h2 id="cells">Cells</h2>
<p class="soft">How many of the people show each expression in each pose, with one of the best photos. Left and right are those
of the picture.</p>
<table class="cells">
<tr><th class="row"></th>{% for pose in poses %}<th>{{ pose }}</th>{% endfor %}</tr>
{% for row in grid %}
<tr><th class="row">{{ row.name }}</th>
{% for cell in row.cells %}
{% if cell.people %}
<td style="background: rgba(var(--heat), {{ '%.2f' % (0.06 + 0.3 * cell.share) }})"><div class="cell">
{% if cell.picture %}<img src="{{ cell.picture }}" alt="">{% endif %}
<div><b>{{ cell.people }}</b> <small>of {{ people }} people</small><small>{{ cell.photos }} photo{{ "s" if cell.photos != 1 }}</small></div>
</div></td>
{% else %}
<td class="none">nobody</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</table>

<h2 id="people">People</h2>
<p class="soft">{% if cards | length < people %}The {{ cards | length }} of {{ people }} with the fewest cells. {% endif %}
Squares: rows are the expressions above, columns the poses.
<span class="legend"><i style="background: var(--full)"></i>photos<i style="background: var(--made)"></i>filled in<i
style="background: var(--line)"></i>missing</span></p>
<div class="people">
{% for card in cards %}
<div class="person">{% if card.validation %}<span class="tag">validation</span>{% endif %}
<h3 title="{{ card.name }}">{{ card.name }}</h3>
<span class="soft">{{ card.count }} photo{{ "s" if card.count != 1 }}, {{ card.cells }} of 35 cells</span>
<div class="row"><div class="mini">{% for row in card.grid %}{% for square in row %}<i class="{{ square.state }}"
title="{{ square.title }}"></i>{% endfor %}{% endfor %}</div>
<div class="faces">{% for face in card.faces %}<img src="{{ face }}" alt="">{% endfor %}</div></div>
{% if card.out %}<small class="soft">left out: {% for reason, count in card.out %}{{ count }} {{ reason }}{{ ", " if not loop.last }}{% endfor %}</small>{% endif %}
</div>
{% endfor %}
</div>

{% if merges %}
<h2 id="names">One person under several names?</h2>
<p class="soft">{% if merged %}Their faces are so alike that these names were taken for one person, whose photos are now
together. If that is wrong, build with --keep-names, or with a higher --same-people.{% else %}Their faces are alike, but the names
were kept apart, as asked for (--keep-names).{% endif %}</p>
{% for merge in merges %}
<div class="merge">{% for face in merge.faces %}<figure>{% if face.picture %}<img src="{{ face.picture }}" alt="">{% endif %}
{{ face.name }}</figure>{% endfor %}<span class="soft">{% if merged %}now <b>{{ merge.name }}</b><br>{% endif %}similarity {{ merge.similarity }}</span></div>
{% endfor %}
{% endif %}

{% if made %}
<h2 id="filled">Filled in</h2>
<p>{{ made_taken }} of {{ made }} pictures that were made for missing cells passed the checks.
{% if made_reasons %}The others: {% for reason, count in made_reasons %}{{ count }} {{ reason }}{{ ", " if not loop.last }}{% endfor %}.{% endif %}</p>
{% endif %}

<h2 id="out">Left out</h2>
{% if not reasons %}<p class="soft">Nothing was left out.</p>{% endif %}
{% for reason in reasons %}
<div class="reason"><span class="count">{{ reason.count }}</span><h3>{{ reason.name }}</h3>
<p class="soft">{{ reason.text }}</p>
<div class="examples">
{% for example in reason.examples %}
<figure><span class="frame"><img src="{{ example.picture }}" alt="">{% if example.box %}<span class="box" style="left: {{ example.box.left }}%; top: {{ example.box.top }}%; width: {{ example.box.width }}%; height: {{ example.box.height }}%"></span>{% endif %}</span><br>
{{ example.source }}{% if example.detail %}<br><span class="soft">{{ example.detail }}</span>{% endif %}</figure>
{% endfor %}
</div>
{% for line in reason.lines %}
<div>{{ line.source }} <span class="soft">{{ line.detail }}</span></div>
{% endfor %}
{% if reason.count > (reason.examples or reason.lines) | length %}<small class="soft">and {{ reason.count - (reason.examples or reason.lines) | length }} more in manifest.parquet</small>{% endif %}
</div>
{% endfor %}
{% if ignored %}
<p class="soft">Files that are no photos: {% for ending, count in ignored.items() %}{{ count }} {{ ending }}{{ ", " if not loop.last }}{% endfor %}.</p>
{% endif %}

<h2 id="settings">Settings</h2>
<table class="plain">
{% for name, value in settings %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
</body>
</html>
"""
