"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const one = (selector, from = document) => from.querySelector(selector);

  // Each picture is in the page once.
  for (const image of all("img[data-same]")) {
    const first = document.getElementById(image.dataset.same);
    for (const name of ["width", "height"]) image.setAttribute(name, first.getAttribute(name));
    image.loading = "lazy";
    image.src = first.src;
  }

  // Light and dark: as the system is, unless somebody chose.
  const theme = one(".theme");
  theme.hidden = false;
  const kept = { get: () => { try { return localStorage.getItem("deblur-lab-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("deblur-lab-theme", value); } catch { /* a page that may keep nothing */ } } };
  const show = (value) => {
    if (value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
  };
  const chosen = one(`input[value="${kept.get() === "light" || kept.get() === "dark" ? kept.get() : "system"}"]`, theme);
  chosen.checked = true;
  show(chosen.value);
  theme.addEventListener("change", (event) => { show(event.target.value); kept.set(event.target.value); });

  // Tables: a click on a heading sorts, numbers the largest first, what has none last; the input's row stays.
  const number = (cell) => {
    const found = /^[+−-]?[\d.,]+/.exec(cell.textContent.trim());
    return found ? parseFloat(found[0].replace("−", "-").replaceAll(",", "")) : NaN;
  };
  for (const table of all("table.sorts")) {
    const headings = all("thead tr:last-child th", table), body = one("tbody", table), first = [...body.rows];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      const words = document.createElement("span");
      words.append(...heading.childNodes);
      button.append(words);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const numeric = heading.classList.contains("number");
        const steps = numeric ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
        const next = steps[(steps.indexOf(heading.getAttribute("aria-sort")) + 1) % 3];
        headings.forEach((other) => other.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const rows = first.filter((row) => !row.classList.contains("input"));
        if (next !== "none") rows.sort((a, b) => {
          if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
          const [left, right] = [number(a.cells[column]), number(b.cells[column])];
          if (isNaN(left) || isNaN(right)) return isNaN(left) - isNaN(right);
          return sign * (left - right);
        });
        body.append(...first.filter((row) => row.classList.contains("input")), ...rows);
      });
    });
  }

  // Strips: names of the dots, by pointing and by the arrow keys.
  for (const strip of all(".strip")) {
    const said = one(".said", strip.closest("section"));
    const dots = all("circle", strip);
    let at = -1;
    const tell = (dot) => {
      all("circle.on").forEach((other) => other.classList.remove("on"));
      dot.classList.add("on");
      said.textContent = `${one(".label", strip).textContent}, ${one("title", dot).textContent}`;
    };
    strip.addEventListener("pointerover", (event) => { if (event.target.tagName === "circle") tell(event.target); });
    strip.addEventListener("click", (event) => { if (event.target.tagName === "circle") at = dots.indexOf(event.target); });
    strip.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (event.key === "Home") at = 0;
      else if (event.key === "End") at = dots.length - 1;
      else if (step) at = Math.min(dots.length - 1, Math.max(0, at + step));
      else return;
      event.preventDefault();
      tell(dots[at]);
    });
    strip.addEventListener("focusout", () => all("circle.on", strip).forEach((dot) => dot.classList.remove("on")));
  }

  // The slider over two pictures.
  for (const looks of all(".looks")) {
    const viewer = one(".viewer", looks), shots = all(".shot", looks);
    const [pick, left, right, overlay] = ["pick", "left", "right", "overlay"].map((name) => one(`select.${name}`, viewer));
    const stage = one(".stage", viewer), wipe = one(".wipe", viewer), key = one(".key", viewer), about = one(".about", viewer);
    const above = one(".above", stage), below = one(".below", stage);
    const figures = (shot) => all("figure", shot).filter((figure) => ["blurry", "sharp", "restored"].includes(figure.dataset.kind));
    const fill = (select, entries, wanted) => {
      select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
      const values = entries.map(([value]) => value);
      select.value = values.includes(wanted) ? wanted : values[0];
    };
    const current = () => shots[Number(pick.value)];
    const named = (label) => figures(current()).find((figure) => figure.dataset.label === label);
    const put = (image, figure) => {
      image.src = one("img", figure).src;
      image.alt = one("img", figure).alt;
    };
    // A net's own, or the truth, which is of all.
    const of = (figure) => figure.dataset.kind === "true_mask" || figure.dataset.model === right.value;
    const draw = () => {
      const shown = [named(left.value), named(right.value)];
      const over = all("figure", current()).find((figure) => figure.dataset.kind === overlay.value && of(figure));
      put(above, shown[0]);
      put(below, over || shown[1]);
      const picture = one("img", shown[0]);
      const [width, height] = [Number(picture.getAttribute("width")), Number(picture.getAttribute("height"))];
      stage.style.aspectRatio = `${width} / ${height}`;
      // A small picture is enlarged; none is higher than the window.
      const widest = Math.min(Math.max(width, 640), (window.innerHeight * 0.78 * width) / height);
      [stage, wipe, about, key].forEach((part) => { part.style.maxWidth = `min(100%, ${Math.round(widest)}px)`; });
      [above, below].forEach((image) => image.classList.toggle("pixels", width < 400 && !(image === below && over)));
      for (const [tag, figure] of [[one(".one", stage), shown[0]], [one(".two", stage), over || shown[1]]]) {
        tag.textContent = figure.dataset.short;
        tag.title = figure.dataset.label;
      }
      key.hidden = !(over && over.dataset.legend);
      key.className = `note key of-${overlay.value}`;
      one("span", key).textContent = key.hidden ? "" : over.dataset.legend;
      about.textContent = shown.map((figure) => [figure.dataset.label, figure.dataset.under].filter(Boolean).join(": ")).join("; ");
    };
    const overlays = () => {
      const names = { true_mask: "true mask", mask: "predicted mask", trajectories: "trajectories" };
      const kinds = all("figure", current()).filter((figure) => figure.dataset.kind in names && of(figure));
      fill(overlay, [["", "none"], ...kinds.map((figure) => [figure.dataset.kind, names[figure.dataset.kind]])], overlay.value);
      overlay.disabled = kinds.length === 0;
    };
    const restored = () => (figures(current()).find((figure) => figure.dataset.kind === "restored") || {}).dataset?.label;
    const choose = (index, wantedLeft, wantedRight) => {
      pick.value = String(index);
      const entries = figures(current()).map((figure) => [figure.dataset.label, figure.dataset.short]);
      const has = (label) => entries.some(([value]) => value === label);
      fill(left, entries, has(wantedLeft) ? wantedLeft : "blurry input");
      fill(right, entries, has(wantedRight) ? wantedRight : restored());
      overlays();
      draw();
    };
    fill(pick, shots.map((shot, index) => [String(index), shot.dataset.name]), "0");
    pick.addEventListener("change", () => choose(Number(pick.value), left.value, right.value));
    left.addEventListener("change", draw);
    right.addEventListener("change", () => { overlays(); draw(); });
    overlay.addEventListener("change", draw);
    one(".swap", viewer).addEventListener("click", () => choose(Number(pick.value), right.value, left.value));
    const move = (percent) => {
      const at = Math.round(Math.min(100, Math.max(0, percent)));
      wipe.value = String(at);
      stage.style.setProperty("--at", `${at}%`);
    };
    wipe.addEventListener("input", () => move(Number(wipe.value)));
    const follow = (event) => {
      const box = stage.getBoundingClientRect();
      move((100 * (event.clientX - box.left)) / box.width);
    };
    stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
    stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
    viewer.hidden = false;
    one("details", looks).open = false;
    choose(0, "blurry input", undefined);
    looks.open_at = (shot, model) => {
      const figure = all("figure", shot).find((one) => one.dataset.kind === "restored" && one.dataset.model === model);
      choose(shots.indexOf(shot), "blurry input", figure && figure.dataset.label);
      viewer.scrollIntoView({ block: "start" });
    };
  }

  // The worst cases: small pictures, which open the slider.
  for (const link of all(".worst a")) {
    const shot = document.getElementById(link.getAttribute("href").slice(1));
    const figure = all("figure", shot).find((one) => one.dataset.kind === "restored" && one.dataset.model === link.dataset.model);
    const kinds = [one('[data-kind="blurry"]', shot), figure, one('[data-kind="sharp"]', shot)];
    for (const shown of kinds) {
      if (!shown) continue;
      const image = new Image();
      image.loading = "lazy";
      image.alt = one("img", shown).alt;
      image.src = one("img", shown).src;
      link.append(image);
    }
    link.addEventListener("click", (event) => { event.preventDefault(); shot.closest(".looks").open_at(shot, link.dataset.model); });
  }
})();
