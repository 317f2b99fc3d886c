// What a search has found may stand in a fold: it is opened. Sphinx marks the finds 10 ms after the page is there.
const openFolds = () => {
  for (const found of document.querySelectorAll("details .highlighted")) {
    for (let fold = found.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.open = true;
    }
  }
};
window.addEventListener("load", () => window.setTimeout(openFolds, 20));
