// The decision browser: rows by text, by outcome and by reason.
(() => {
  for (const browser of document.querySelectorAll(".browser")) {
    const controls = browser.querySelector(".controls");
    if (!controls) continue;
    const [find, outcome, reason] = [".find", ".outcomes", ".reasons"].map((name) => controls.querySelector(name));
    const cases = [...browser.querySelectorAll(".case")];
    const narrow = () => {
      const wanted = find.value.trim().toLowerCase();
      let count = 0;
      for (const one of cases) {
        const fits = (outcome.value === "" || one.dataset.outcome === outcome.value) &&
          (reason.value === "" || one.dataset.reasons.split("|").includes(reason.value)) &&
          (wanted === "" || one.textContent.toLowerCase().includes(wanted));
        one.hidden = !fits;
        count += fits;
      }
      controls.querySelector(".found").textContent = count < cases.length ? `${count} of ${cases.length}` : "";
    };
    find.addEventListener("input", narrow);
    outcome.addEventListener("change", narrow);
    reason.addEventListener("change", narrow);
  }
})();
