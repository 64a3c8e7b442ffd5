// Draws the diagrams in the colours of the page. Without mermaid.min.js their text stays.
if (window.mermaid) {
  const theme = document.body?.dataset.theme ?? "auto";
  const dark = theme === "dark" ||
    (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  mermaid.initialize({ startOnLoad: true, theme: dark ? "dark" : "neutral" });
}
