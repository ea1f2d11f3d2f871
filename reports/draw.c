#include "reports/draw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* ---- popularity ---- */

bool plan_popularity(const plan *p, int i, double *out) {
  const json *rows = json_get(json_get(json_get(p->extra, "inputs"), "popularity"), "p");
  if (i >= json_len(rows)) return false;
  int e = 0, n = p->layer[i].n_experts;
  for (const json *run = json_first(json_at(rows, i)); run != NULL && e < n; run = json_next(run)) {
    double count = json_number(json_first(run), 0), v = json_number(json_next(json_first(run)), NAN);
    if (json_len(run) != 2 || !(count >= 1) || !(v >= 0)) return false;
    for (int k = 0; k < count && e < n; k++) out[e++] = v;
  }
  return e == n && n > 0;
}

/* ---- map ---- */

/* A cell's look: place (0 CPU, 1 device, 2 came in, 3 went out, from 4 on the second and further devices) and shade 0..3. */
enum { SHADES = 4, FURTHER = 7, PLACES = 4 + FURTHER, LOOKS = SHADES * PLACES, LABELS = 10 };
static const char *const place_class[PLACES] = {"cpu", "dev", "in", "out", "ga", "gb", "gc", "gd", "ge", "gf", "gg"};

typedef struct {
  const plan *now, *old;
  int n_rows, n_cols;
  int *layer;    /* [n_rows]: positions in now->layer */
  uint8_t *look; /* [n_rows * n_cols]; LOOKS = no expert */
  bool shaded;
} map;

static const plan_layer *same_layer(const plan *p, const plan_layer *l) {
  for (int i = 0; p != NULL && i < p->n_layers; i++)
    if (p->layer[i].index == l->index && p->layer[i].n_experts == l->n_experts) return &p->layer[i];
  return NULL;
}

/* Against the mean of its layer: under half, under once, under twice, more. */
static int shade(double p, double mean) {
  double r = mean > 0 ? p / mean : 1;
  return r < 0.5 ? 0 : r < 1 ? 1 : r < 2 ? 2 : 3;
}

static int place_of(int device) {
  return device < 0 ? 0 : device == 0 ? 1 : 4 + (device - 1) % FURTHER;
}

static void fill_row(map *m, int row, double *pop) {
  const plan_layer *l = &m->now->layer[m->layer[row]], *before = same_layer(m->old, l);
  uint8_t *look = m->look + (size_t)row * (size_t)m->n_cols;
  bool known = plan_popularity(m->now, m->layer[row], pop);
  double sum = 0;
  for (int e = 0; known && e < l->n_experts; e++) sum += pop[e];
  for (int e = 0; e < m->n_cols; e++) {
    if (e >= l->n_experts) {
      look[e] = LOOKS;
      continue;
    }
    int place = place_of(l->device[e]);
    if (before != NULL && (before->device[e] >= 0) != (l->device[e] >= 0)) place = l->device[e] >= 0 ? 2 : 3;
    int s = known ? shade(pop[e], sum / l->n_experts) : 2;
    m->shaded = m->shaded || (known && pop[e] != pop[0]);
    look[e] = (uint8_t)(place * SHADES + s);
  }
}

static hf_status map_new(const plan *now, const plan *old, map *m) {
  double *pop = NULL;
  *m = (map){.now = now, .old = old};
  for (int i = 0; i < now->n_layers; i++) {
    if (!now->layer[i].moe) continue;
    m->n_rows++;
    if (now->layer[i].n_experts > m->n_cols) m->n_cols = now->layer[i].n_experts;
  }
  if (m->n_rows == 0 || m->n_cols == 0) return HF_OK;
  HF_TRY(hf_alloc(&m->layer, (size_t)m->n_rows, sizeof *m->layer, "placement map"));
  HF_TRY(hf_alloc(&m->look, (size_t)m->n_rows * (size_t)m->n_cols, 1, "placement map"));
  HF_TRY(hf_alloc(&pop, (size_t)m->n_cols, sizeof *pop, "placement map"));
  for (int i = 0, row = 0; i < now->n_layers; i++)
    if (now->layer[i].moe) m->layer[row++] = i;
  for (int row = 0; row < m->n_rows; row++) fill_row(m, row, pop);
  free(pop);
  if (m->shaded) return HF_OK;
  for (int i = 0; i < m->n_rows * m->n_cols; i++) /* all alike: one full colour each */
    if (m->look[i] < LOOKS) m->look[i] = (uint8_t)(m->look[i] / SHADES * SHADES + 2);
  return HF_OK;
}

/* One path for each look: "M x y h n" draws a run of cells as a line one unit wide. */
static void draw_cells(page *p, const map *m) {
  for (int look = 0; look < LOOKS; look++) {
    bool open = false;
    for (int row = 0; row < m->n_rows; row++) {
      const uint8_t *cell = m->look + (size_t)row * (size_t)m->n_cols;
      for (int e = 0, n; e < m->n_cols; e += n) {
        for (n = 1; e + n < m->n_cols && cell[e + n] == cell[e];) n++;
        if (cell[e] != look) continue;
        if (!open) page_raw(p, "<path class=\"%s%d\" d=\"", place_class[look / SHADES], look % SHADES);
        open = true;
        page_raw(p, "M%d %d.5h%d", e, row, n);
      }
    }
    if (open) page_raw(p, "\"/>\n");
  }
}

static void draw_grid(page *p, const map *m) {
  page_raw(p, "<path class=\"grid\" d=\"");
  for (int row = 1; row < m->n_rows; row++) page_raw(p, "M0 %dh%d", row, m->n_cols);
  for (int e = 1; e < m->n_cols && m->n_cols <= 64; e++) page_raw(p, "M%d 0v%d", e, m->n_rows);
  page_raw(p, "\"/>\n");
}

/* Layer numbers beside the rows and expert numbers below; the map stretches, the numbers do not. */
static void draw_axes(page *p, const map *m) {
  int step = (m->n_rows + LABELS - 1) / LABELS;
  page_raw(p, "<div class=\"map-y\" aria-hidden=\"true\">");
  for (int row = 0; row < m->n_rows; row += step)
    page_raw(p, "<span style=\"top:%.2f%%\">%d</span>", 100 * (row + 0.5) / m->n_rows, m->now->layer[m->layer[row]].index);
  page_raw(p, "</div><div class=\"map-x\" aria-hidden=\"true\">");
  int each = m->n_cols <= 8 ? 1 : m->n_cols / 8;
  for (int e = 0; e < m->n_cols; e += each) page_raw(p, "<span style=\"left:%.2f%%\">%d</span>", 100 * (e + 0.5) / m->n_cols, e);
  page_raw(p, "</div>\n");
}

/* name: of a device, or NULL. */
static void legend_item(page *p, const char *class, const char *text, const char *name) {
  page_raw(p, "<li><svg class=\"key\" viewBox=\"0 0 1 1\" aria-hidden=\"true\"><path class=\"%s\" d=\"M0 .5h1\"/></svg>", class);
  page_escaped(p, "%s%s%s", text, name != NULL ? ": " : "", name != NULL ? name : "");
  page_raw(p, "</li>\n");
}

static void draw_legend(page *p, const map *m) {
  page_raw(p, "<ul class=\"legend\">\n");
  if (m->now->n_devices < 2) legend_item(p, "dev2", "on the device", NULL);
  for (int d = 0; m->now->n_devices > 1 && d < m->now->n_devices; d++) {
    char class[8], place[32];
    snprintf(class, sizeof class, "%s2", place_class[place_of(d)]);
    snprintf(place, sizeof place, "on device %d", d);
    legend_item(p, class, place, m->now->device[d].name);
  }
  legend_item(p, "cpu2", "on the CPU", NULL);
  if (m->old != NULL) {
    legend_item(p, "in2", "moved to the device", NULL);
    legend_item(p, "out2", "moved to the CPU", NULL);
  }
  page_raw(p, "</ul>\n");
  if (m->shaded)
    page_note(p, "The stronger the colour, the more often the plan expects an expert to be chosen: under half of its layer's "
                 "mean, under the mean, "
                 "under twice, more.");
}

/* What the script needs to name the cell under the pointer: per row [layer, [[count, device], ...], [p, ...]]. */
static void map_data(page *p, const char *id, const map *m) {
  json *all = page_data(p, id), *rows = json_add_array(all, "rows");
  double *pop = NULL;
  json_add_int(all, "columns", m->n_cols);
  page_failed(p, hf_alloc(&pop, (size_t)m->n_cols, sizeof *pop, "placement map"));
  for (int row = 0; row < m->n_rows && pop != NULL; row++) {
    const plan_layer *l = &m->now->layer[m->layer[row]];
    json *o = json_add_object(rows, NULL);
    json_add_int(o, "layer", l->index);
    json *runs = json_add_array(o, "runs");
    for (int e = 0, n; e < l->n_experts; e += n) {
      for (n = 1; e + n < l->n_experts && l->device[e + n] == l->device[e];) n++;
      json_add_int(runs, NULL, n);
      json_add_int(runs, NULL, l->device[e]);
    }
    if (!m->shaded || !plan_popularity(m->now, m->layer[row], pop)) continue;
    json *ps = json_add_array(o, "p");
    for (int e = 0; e < l->n_experts; e++) json_add_num(ps, NULL, round(1e5 * pop[e]) / 1e5);
  }
  free(pop);
}

static void draw_map_figure(page *p, const char *id, const map *m) {
  char on_text[FORMAT_MAX], all_text[FORMAT_MAX];
  int64_t on = 0, all = 0;
  int height = m->n_rows * (m->n_rows <= 8 ? 26 : m->n_rows <= 30 ? 14 : 8);
  data_placed(m->now, -1, &on, &all);
  page_raw(p, "<figure class=\"map\"><figcaption id=\"%s-caption\">", id);
  page_escaped(p, "Where each expert lives: one row per layer, one column per expert");
  page_raw(p, "</figcaption>\n");
  draw_legend(p, m);
  page_raw(p,
           "<div class=\"map-box\"><svg class=\"map-cells\" data-map=\"%s\" role=\"img\" aria-labelledby=\"%s-caption %s-alt\" "
           "viewBox=\"0 0 %d %d\" "
           "preserveAspectRatio=\"none\" style=\"height:%dpx\">\n",
           id, id, id, m->n_cols, m->n_rows, height);
  draw_cells(p, m);
  draw_grid(p, m);
  page_raw(p, "</svg>\n");
  draw_axes(p, m);
  page_raw(p, "</div><p class=\"tip\" aria-hidden=\"true\"></p>\n<p class=\"alt\" id=\"%s-alt\">", id);
  format_number((double)on, FMT_INT, on_text);
  format_number((double)all, FMT_INT, all_text);
  page_escaped(p, "%s of %s experts in %d layers are on the device. The table below gives the count for each layer.", on_text,
               all_text, m->n_rows);
  page_raw(p, "</p></figure>\n");
}

void draw_map(page *p, const char *id, const plan *now, const plan *old) {
  map m;
  if (page_status(p) != HF_OK) return;
  page_failed(p, map_new(now, old, &m));
  if (m.look != NULL && page_status(p) == HF_OK) {
    draw_map_figure(p, id, &m);
    map_data(p, id, &m);
  }
  free(m.layer);
  free(m.look);
}

/* ---- budget ---- */

enum { BUDGET_COLOURS = 8 };

static void draw_place(page *p, const plan *pl, int first) {
  const char *where = pl->budget[first].where;
  char need[FORMAT_MAX], limit[FORMAT_MAX];
  int64_t sum = 0, most = pl->budget[first].limit_bytes;
  for (int i = first; i < pl->n_budget; i++)
    if (strcmp(pl->budget[i].where, where) == 0) sum += pl->budget[i].bytes;
  format_number((double)sum, FMT_BYTES, need);
  format_number((double)most, FMT_BYTES, limit);
  page_raw(p, "<figure class=\"budget\"><figcaption>");
  if (most > 0) page_escaped(p, "%s: %s of %s (%.3g %%)", where, need, limit, 100.0 * (double)sum / (double)most);
  else page_escaped(p, "%s: %s, no limit stated", where, need);
  page_raw(p, "</figcaption><div class=\"bar\" aria-hidden=\"true\">");
  double whole = (double)(most > sum ? most : sum > 0 ? sum : 1);
  for (int i = first, k = 0; i < pl->n_budget; i++)
    if (strcmp(pl->budget[i].where, where) == 0)
      page_raw(p, "<span class=\"s%d\" style=\"width:%.3f%%\"></span>", k++ % BUDGET_COLOURS,
               100 * (double)pl->budget[i].bytes / whole);
  page_raw(p, "</div><ul class=\"legend\">");
  for (int i = first, k = 0; i < pl->n_budget; i++) {
    if (strcmp(pl->budget[i].where, where) != 0) continue;
    format_number((double)pl->budget[i].bytes, FMT_BYTES, need);
    page_raw(p, "<li><span class=\"key s%d\"></span>", k++ % BUDGET_COLOURS);
    page_escaped(p, "%s: %s", pl->budget[i].what, need);
    page_raw(p, "</li>");
  }
  page_raw(p, "</ul></figure>\n");
}

void draw_budget(page *p, const plan *pl) {
  for (int i = 0; i < pl->n_budget; i++) {
    bool first = true;
    for (int k = 0; k < i; k++) first = first && strcmp(pl->budget[k].where, pl->budget[i].where) != 0;
    if (first) draw_place(p, pl, i);
  }
}

/* ---- range ---- */

void draw_range(page *p, const plan_range *r, const draw_mark *marks, int n) {
  char low[FORMAT_MAX], likely[FORMAT_MAX], high[FORMAT_MAX], value[FORMAT_MAX];
  double most = r->high;
  for (int i = 0; i < n; i++) most = fmax(most, marks[i].value);
  if (!(most > 0) || n > DRAW_MARKS) return;
  double full = 100 / (1.12 * most);
  format_number(r->low, FMT_TOK_S, low);
  format_number(r->likely, FMT_TOK_S, likely);
  format_number(r->high, FMT_TOK_S, high);
  page_raw(p, "<figure class=\"range\"><figcaption>");
  page_escaped(p, "Decode speed, all users together, in tokens/s: predicted %s, interval %s to %s", likely, low, high);
  for (int i = 0; i < n; i++) {
    format_number(marks[i].value, FMT_TOK_S, value);
    page_escaped(p, "; %s %s", marks[i].label, value);
  }
  page_raw(p,
           "</figcaption><div class=\"axis\" aria-hidden=\"true\"><span class=\"label top predicted\" "
           "style=\"--at:%.2f%%\">likely %s</span>",
           r->likely * full, likely);
  page_raw(p,
           "<span class=\"label ends\" style=\"left:0;transform:none\">0</span><span class=\"interval\" "
           "style=\"left:%.2f%%;width:%.2f%%\"></span><span class=\"tick predicted\" style=\"left:%.2f%%\"></span>",
           r->low * full, (r->high - r->low) * full, r->likely * full);
  page_raw(p,
           "<span class=\"label ends\" style=\"--at:%.2f%%\">%s</span><span class=\"label ends\" style=\"--at:%.2f%%\">%s</span>",
           r->low * full, low, r->high * full, high);
  for (int i = 0; i < n; i++) {
    format_number(marks[i].value, FMT_TOK_S, value);
    page_raw(p, "<span class=\"tick long %s\" style=\"left:%.2f%%\"></span><span class=\"label row%d %s\" style=\"--at:%.2f%%\">",
             marks[i].role, marks[i].value * full, i, marks[i].role, marks[i].value * full);
    page_escaped(p, "%s %s", marks[i].label, value);
    page_raw(p, "</span>");
  }
  page_raw(p, "</div></figure>\n");
}
