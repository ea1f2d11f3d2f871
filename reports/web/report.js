/* Draws the charts of a report and names the cell of a placement map under the pointer. Without it the page is complete but for the
 * charts, whose numbers are in the tables. */
(function () {
  'use strict';
  var data = JSON.parse(document.getElementById('report-data').textContent);
  var root = document.documentElement;
  var shapes = ['circle', 'rect', 'triangle', 'rectRot', 'crossRot', 'star'];
  var charts = [];

  function colour(name) {
    return getComputedStyle(root).getPropertyValue('--' + name).trim();
  }

  function plain(v) {
    var a = Math.abs(v);
    if (a === 0) return '0';
    if (a >= 1000) return v.toLocaleString('en', { maximumFractionDigits: 0 });
    return String(Number(v.toPrecision(3)));
  }

  function axis(title, log, steps) {
    var a = {
      type: log ? 'logarithmic' : 'linear',
      title: { display: true, text: title, color: colour('muted'), font: { size: 12 } },
      grid: { color: colour('line'), drawBorder: false },
      ticks: { color: colour('muted'), font: { size: 11 }, maxRotation: 0, callback: plain }
    };
    if (log) a.afterBuildTicks = function (scale) { scale.ticks = logTicks(scale.min, scale.max, steps); };
    return a;
  }

  /* steps: factors within a decade ([1] or [1, 2, 5]), or "two" for powers of two. */
  function logTicks(lo, hi, steps) {
    var list = [], e, base = steps === 'two' ? 2 : 10, factors = steps === 'two' ? [1] : steps;
    for (e = Math.floor(Math.log(lo) / Math.log(base)); Math.pow(base, e) <= hi; e++) {
      factors.forEach(function (f) {
        var v = f * Math.pow(base, e);
        if (v >= lo * (1 - 1e-9) && v <= hi * (1 + 1e-9)) list.push({ value: v });
      });
    }
    return list;
  }

  /* A logarithmic axis ends near its data instead of at a power of ten. */
  function fitLog(a, c) {
    var lo = Infinity, hi = 0;
    c.series.forEach(function (s) { s.points.forEach(function (p) { lo = Math.min(lo, p.y); hi = Math.max(hi, p.y); }); });
    if (!(lo > 0 && hi > 0)) return [1];
    a.min = lo / 1.25;
    a.max = hi * 1.25;
    return hi / lo < 100 ? [1, 2, 5] : [1];
  }

  function series(s, i, bar) {
    var c = s.role === 'equal' ? colour('muted') : colour(s.role || 's' + i % 8);
    if (s.role === 'equal') return { label: s.name, data: s.points, showLine: true, pointRadius: 0, borderColor: c, borderWidth: 1, borderDash: [4, 4] };
    return {
      label: s.name, data: bar ? s.points.map(function (p) { return p.y; }) : s.points,
      borderColor: c, backgroundColor: bar ? c : colour('surface'), borderWidth: bar ? 0 : 2, borderRadius: bar ? 2 : 0,
      pointStyle: bar ? 'rect' : shapes[i % shapes.length], pointRadius: 3, pointBorderWidth: 1.5, tension: 0
    };
  }

  /* Bars with names lie, so that the names can be read. */
  function lies(c) {
    return c.type === 'bar' && c.series[0].points.some(function (p) { return typeof p.x === 'string' && p.x.length > 6; });
  }

  function shortened(value) {
    var name = String(this.getLabelForValue(value)), most = this.chart.width < 440 ? 17 : 28;
    return name.length > most ? name.slice(0, most - 1) + '\u2026' : name;
  }

  function options(c, bar) {
    var span = {}, steps = c.log_y ? fitLog(span, c) : [1], lying = lies(c);
    var x = axis(c.x, c.log_x, 'two'), y = Object.assign(axis(c.y, c.log_y, steps), span);
    if (lying) {
      x.title.display = false;
      x.type = 'category';
      x.grid.display = false;
      x.ticks.autoSkip = false;
      x.ticks.callback = shortened;
    } else if (bar) {
      x.type = 'category';
      x.grid.display = false;
      delete x.ticks.callback;
    } else if (!c.log_x) {
      x.ticks.stepSize = c.x_step;
    }
    if (c.type === 'scatter') x.afterBuildTicks = function (scale) { scale.ticks = logTicks(scale.min, scale.max, steps); };
    if (!c.log_y) y.beginAtZero = true;
    return {
      animation: false, responsive: true, maintainAspectRatio: false, scales: lying ? { x: y, y: x } : { x: x, y: y }, indexAxis: lying ? 'y' : 'x',
      plugins: {
        legend: { display: c.series.length > 1, position: 'bottom', labels: { color: colour('text'), usePointStyle: true, boxHeight: 7, font: { size: 12 } } },
        tooltip: { callbacks: { title: function (items) { return c.x + ' ' + items[0].label; },
          label: function (item) { return item.dataset.label + ': ' + plain(lying ? item.parsed.x : item.parsed.y) + ' ' + c.y; } } }
      }
    };
  }

  function draw() {
    charts.forEach(function (c) { c.destroy(); });
    charts = data.charts.map(function (c) {
      var bar = c.type === 'bar', config = { type: c.type, data: { datasets: [] } };
      if (bar) config.data.labels = c.series[0].points.map(function (p) { return p.x; });
      config.data.datasets = c.series.map(function (s, i) { return series(s, i, bar); });
      config.options = options(c, bar);
      var canvas = document.getElementById(c.id);
      if (lies(c)) canvas.parentNode.style.height = 70 + 24 * config.data.labels.length * c.series.length + 'px';
      return new Chart(canvas, config);
    });
  }

  function place(runs, expert) {
    for (var i = 0; i < runs.length; i += 2) {
      if (expert < runs[i]) return runs[i + 1];
      expert -= runs[i];
    }
    return null;
  }

  function watchMap(svg) {
    var map = data[svg.getAttribute('data-map')], tip = svg.closest('figure').querySelector('.tip');
    if (!map) return;
    svg.addEventListener('pointermove', function (event) {
      var box = svg.getBoundingClientRect();
      var row = map.rows[Math.floor((event.clientY - box.top) / box.height * map.rows.length)];
      var expert = Math.floor((event.clientX - box.left) / box.width * map.columns);
      var where = row ? place(row.runs, expert) : null;
      if (where === null) return;
      tip.textContent = 'Layer ' + row.layer + ', expert ' + expert + ': ' + (where < 0 ? 'CPU' : 'device ' + where) +
        (row.p ? ', expected to be chosen by ' + plain(100 * row.p[expert]) + ' % of the tokens' : '');
    });
    svg.addEventListener('pointerleave', function () { tip.textContent = ''; });
  }

  /* Says so where a table goes on beyond its edge. */
  function markWide() {
    Array.prototype.forEach.call(document.querySelectorAll('.scroll'), function (box) {
      box.parentNode.classList.toggle('wide', box.scrollWidth > box.clientWidth + 1);
    });
  }

  Array.prototype.forEach.call(document.querySelectorAll('svg.map-cells'), watchMap);
  markWide();
  window.addEventListener('resize', markWide);
  document.addEventListener('toggle', markWide, true); /* a folded table has no width */
  if (typeof Chart === 'undefined') {
    root.className += ' no-charts';
    return;
  }
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  draw();
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  /* Paper is white, and its columns are narrower than the window's. */
  window.addEventListener('beforeprint', function () {
    root.setAttribute('data-theme', 'light');
    root.setAttribute('data-paper', 'a4'); /* the window still has its own width now */
    draw();
    charts.forEach(function (c) { c.resize(); });
  });
  window.addEventListener('afterprint', function () {
    root.removeAttribute('data-theme');
    root.removeAttribute('data-paper');
    draw();
  });
})();
