/* The pipeline's Gantt on a canvas: zoom, pan, hover, keyboard. Data: five integers per span in one flat list
   (row, start, length, style, micro-batch), times in tenths of a millisecond from the window's start. */
(function () {
  "use strict";
  const TICKS = 10000, GUTTER = 92, AXIS = 24, MIN_VIEW = 50;
  const HEIGHT = { work: 0.84, idle: 0.36, transfer: 0.16 };

  function seconds(ticks) {
    const s = ticks / TICKS;
    return s >= 1 ? s.toFixed(3) + " s" : (s * 1000).toFixed(1) + " ms";
  }

  function niceStep(raw) {
    const power = Math.pow(10, Math.floor(Math.log10(raw)));
    return power * [1, 2, 5, 10].find(function (m) { return m * power >= raw; });
  }

  function Gantt(figure, data) {
    const canvas = figure.querySelector("canvas"), context = canvas.getContext("2d");
    const tip = figure.querySelector(".tip"), detail = figure.querySelector(".detail");
    const rows = data.rows.map(function () { return { work: [], transfer: [] }; });
    const spans = [];
    for (let i = 0; i < data.spans.length; i += 5) {
      const span = {
        row: data.spans[i], start: data.spans[i + 1], length: data.spans[i + 2],
        style: data.styles[data.spans[i + 3]], code: data.spans[i + 3], microbatch: data.spans[i + 4],
      };
      spans.push(span);
      rows[span.row][span.style.form === "transfer" ? "transfer" : "work"].push(span);
    }
    const rowHeight = rows.length > 40 ? 14 : rows.length > 16 ? 18 : 26;
    const height = AXIS + rows.length * rowHeight + 6;
    const everything = Math.max(data.length, MIN_VIEW);
    let view = { from: 0, length: Math.min(everything, Math.max(everything / 4, 20 * TICKS)) };
    let width = 0, chosen = null, row = 0, single = -1, drag = null, queued = false;

    function x(ticks) { return GUTTER + (ticks - view.from) / view.length * (width - GUTTER); }
    function ticksAt(px) { return view.from + (px - GUTTER) / (width - GUTTER) * view.length; }

    function look(from, length) {
      view.length = Math.min(Math.max(length, MIN_VIEW), everything);
      view.from = Math.min(Math.max(from, 0), everything - view.length);
      draw();
    }

    function zoom(factor, at) {
      const middle = at === undefined ? view.from + view.length / 2 : at;
      const length = Math.min(Math.max(view.length * factor, MIN_VIEW), everything);
      look(middle - (middle - view.from) * length / view.length, length);
    }

    function firstVisible(list) {
      let low = 0, high = list.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (list[middle].start + list[middle].length < view.from) { low = middle + 1; } else { high = middle; }
      }
      return low;
    }

    function drawSpan(span) {
      const left = Math.max(x(span.start), GUTTER), right = Math.min(x(span.start + span.length), width);
      if (right <= GUTTER || left >= width) { return; }
      const form = span.style.form, tall = rowHeight * HEIGHT[form];
      const top = AXIS + span.row * rowHeight + (form === "transfer" ? rowHeight - tall : (rowHeight - tall) / 2);
      const wide = right - left;
      context.globalAlpha = single >= 0 && span.code !== single ? 0.12 : 1;
      context.fillStyle = span.style.colour;
      context.fillRect(left, top, Math.max(form === "work" && wide > 3 ? wide - 0.6 : wide, 0.5), tall);
      if (form === "work" && span.microbatch >= 0 && wide > 30 && rowHeight >= 14) {
        const light = ["#86bfe3", "#7fceb9", "#f0a070"].includes(span.style.colour);
        context.fillStyle = light ? "#1b2330" : "#ffffff";
        context.fillText(String(span.microbatch), left + wide / 2, top + tall / 2 + 0.5);
      }
      if (span === chosen) {
        context.globalAlpha = 1;
        context.strokeStyle = "#1b2330";
        context.lineWidth = 1.6;
        context.strokeRect(left, top, Math.max(wide, 2), tall);
      }
    }

    function paint() {
      queued = false;
      const ratio = window.devicePixelRatio || 1;
      width = canvas.clientWidth;
      if (!width) { return; }
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      context.textBaseline = "middle";
      const family = getComputedStyle(canvas).fontFamily;
      const step = niceStep(view.length / Math.max(3, (width - GUTTER) / 110));
      context.font = "11px " + family;
      context.textAlign = "center";
      for (let t = Math.ceil(view.from / step) * step; t <= view.from + view.length; t += step) {
        context.fillStyle = "#eceff2";
        context.fillRect(Math.round(x(t)), AXIS - 4, 1, height - AXIS);
        context.fillStyle = "#5a6472";
        const digits = Math.max(0, Math.ceil(-Math.log10(step / TICKS)));
        context.fillText((t / TICKS).toFixed(digits) + " s", Math.min(x(t), width - 18), AXIS / 2 - 1);
      }
      context.textAlign = "right";
      context.font = (rowHeight < 18 ? "9.5px " : "11px ") + family;
      data.rows.forEach(function (name, i) {
        const middle = AXIS + (i + 0.5) * rowHeight;
        if (document.activeElement === canvas && i === row) {
          context.fillStyle = "#f0f4f8";
          context.fillRect(0, middle - rowHeight / 2, width, rowHeight);
        }
        context.fillStyle = "#5a6472";
        context.fillText(name, GUTTER - 8, middle, GUTTER - 10);
      });
      context.textAlign = "center";
      context.font = "9px " + family;
      rows.forEach(function (lists) {
        [lists.work, lists.transfer].forEach(function (list) {
          for (let i = firstVisible(list); i < list.length && list[i].start <= view.from + view.length; i += 1) {
            drawSpan(list[i]);
          }
        });
      });
      context.globalAlpha = 1;
    }

    function draw() {
      if (!queued) { queued = true; window.requestAnimationFrame(paint); }
    }

    function words(span) {
      const what = span.style.label;
      const which = span.microbatch >= 0 ? " of micro-batch " + span.microbatch : "";
      return data.rows[span.row] + ": " + what + which + ", " + seconds(span.length) + ", from "
        + (data.from_s + span.start / TICKS).toFixed(3) + " s";
    }

    function choose(span) {
      chosen = span;
      detail.textContent = span ? words(span) : "Point at a box to read what it is.";
      draw();
    }

    function spanAt(px, py) {
      const at = Math.floor((py - AXIS) / rowHeight);
      if (at < 0 || at >= rows.length || px < GUTTER) { return null; }
      const t = ticksAt(px), slack = view.length / width, low = (py - AXIS) / rowHeight - at > 1 - HEIGHT.transfer;
      function within(list) {
        return list.find(function (s) { return s.start - slack <= t && t <= s.start + s.length + slack; });
      }
      return (low && within(rows[at].transfer)) || within(rows[at].work) || null;
    }

    function position(event) {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    }

    canvas.addEventListener("pointerdown", function (event) {
      drag = { x: position(event).x, from: view.from };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", function (event) {
      const at = position(event);
      if (drag) {
        tip.hidden = true;
        look(drag.from - (at.x - drag.x) / (width - GUTTER) * view.length, view.length);
        return;
      }
      const span = spanAt(at.x, at.y);
      if (span !== chosen) { choose(span); }
      tip.hidden = !span;
      if (span) {
        tip.textContent = words(span);
        tip.style.left = Math.min(at.x + 14, width - tip.offsetWidth - 4) + "px";
        tip.style.top = at.y + 16 + "px";
      }
    });
    ["pointerup", "pointercancel"].forEach(function (name) {
      canvas.addEventListener(name, function () { drag = null; });
    });
    canvas.addEventListener("pointerleave", function () { tip.hidden = true; });
    canvas.addEventListener("dblclick", function (event) { zoom(0.5, ticksAt(position(event).x)); });
    canvas.addEventListener("wheel", function (event) {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 100)) * 0.5), ticksAt(position(event).x));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        look(view.from + (event.deltaX || event.deltaY) / width * view.length, view.length);
      }
    }, { passive: false });

    function walk(by) {
      const list = rows[row].work;
      if (!list.length) { return; }
      let at = list.indexOf(chosen);
      at = at < 0 ? firstVisible(list) : at + by;
      const span = list[Math.min(Math.max(at, 0), list.length - 1)];
      choose(span);
      if (span.start < view.from || span.start + span.length > view.from + view.length) {
        look(span.start - view.length / 3, view.length);
      }
    }

    const acts = {
      in: function () { zoom(0.5); }, out: function () { zoom(2); },
      left: function () { look(view.from - view.length * 0.2, view.length); },
      right: function () { look(view.from + view.length * 0.2, view.length); },
      all: function () { look(0, everything); },
      up: function () { row = Math.max(0, row - 1); choose(null); },
      down: function () { row = Math.min(rows.length - 1, row + 1); choose(null); },
      next: function () { walk(1); }, previous: function () { walk(-1); },
    };
    const keys = {
      "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
      "0": "all", Home: "all", n: "next", p: "previous",
    };
    canvas.addEventListener("keydown", function (event) {
      const act = keys[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) { return; }
      event.preventDefault();
      acts[act]();
    });
    ["focus", "blur"].forEach(function (name) { canvas.addEventListener(name, draw); });
    figure.querySelectorAll("[data-act]").forEach(function (button) {
      button.addEventListener("click", acts[button.dataset.act]);
    });

    const legend = figure.querySelector(".keys");
    data.styles.forEach(function (style, code) {
      const button = document.createElement("button"), swatch = document.createElement("i");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      swatch.className = style.form;
      swatch.style.background = style.colour;
      button.append(swatch, style.label);
      button.addEventListener("click", function () {
        single = single === code ? -1 : code;
        legend.querySelectorAll("button").forEach(function (other, i) {
          other.setAttribute("aria-pressed", String(i === single));
        });
        draw();
      });
      legend.append(button);
    });

    figure.querySelector(".still").style.display = "none";
    figure.querySelector(".live").hidden = false;
    canvas.style.height = height + "px";
    if ("ResizeObserver" in window) { new ResizeObserver(draw).observe(canvas); }
    window.addEventListener("resize", draw);
    look(0, view.length);
  }

  document.querySelectorAll("[data-gantt]").forEach(function (figure) {
    const source = document.getElementById(figure.dataset.gantt);
    if (source) { Gantt(figure, JSON.parse(source.textContent)); }
  });
})();
