/** The page that plays a session: the same bytes for everyone, without any data. Its script fills it. */

/** Makes it. @param assets - address of the folder of scripts and styles */
export function sessionHtml(assets: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<meta name="color-scheme" content="light dark">
<title>Session - Nestgate</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${assets}/asciinema-player.css">
<link rel="stylesheet" href="${assets}/session.css">
<script src="${assets}/asciinema-player.min.js" defer></script>
<script src="${assets}/session.js" type="module"></script>
</head>
<body>
<header>
<h1>Session</h1>
<p id="state" role="status">Loading…</p>
</header>
<main>
<div id="left">
<section id="replay" aria-label="Terminal" hidden>
<div id="terminal"></div>
<div id="controls">
<label>Speed <select id="speed"><option>0.5</option><option selected>1</option><option>2</option><option>4</option><option>8</option></select></label>
<label>Pauses of at most <select id="idle"><option value="1">1 s</option><option value="2" selected>2 s</option><option value="10">10 s</option><option value="0">their length</option></select></label>
</div>
</section>
<section id="tables"></section>
</div>
<aside id="facts" aria-label="About the session"></aside>
</main>
<noscript><p>This page needs JavaScript. <code>nestgate sessions play</code> plays the session in a terminal.</p></noscript>
</body>
</html>
`
}
