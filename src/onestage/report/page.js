// The page at work: zooming into pictures, unpacking the figures' library, drawing the figures.
(async () => {
  "use strict";
  for (const picture of document.querySelectorAll(".pictures figure")) {
    picture.addEventListener("click", () => picture.classList.toggle("large"));
  }
  const places = [...document.querySelectorAll("script[data-figure]")];
  if (!places.length) return;
  const say = (text) => document.querySelectorAll(".figure .wait").forEach((p) => { p.textContent = text; });
  if (!("DecompressionStream" in window)) {
    say("This browser is too old to unpack the figures; any of 2023 or later can.");
    return;
  }
  const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const ink = () => getComputedStyle(document.body).color;
  // No bar of buttons: it would lie on the legends. A drag zooms in, a double click out.
  const config = { displayModeBar: false, responsive: true };
  const draw = () => {
    for (const place of places) {
      const { data, layout } = JSON.parse(place.textContent);
      const target = document.getElementById(`figure-${place.dataset.figure}`);
      target.querySelector(".wait")?.remove();
      layout.font.color = ink();
      layout.hoverlabel = { bgcolor: getComputedStyle(document.body).backgroundColor, font: { color: ink() } };
      if (target.clientWidth < 480) { layout.margin.l = 44; layout.font.size = 12; }
      window.Plotly.react(target, data, layout, config);
    }
    document.documentElement.dataset.figures = String(places.length);
  };
  draw();
  dark.addEventListener("change", draw);
})();
