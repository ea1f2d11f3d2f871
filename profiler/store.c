/* store.c: results into the database, in one transaction, and out of it again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "profiler/profile.h"

static hf_status put_rows(db *d, const profile *p, int64_t machine_id) {
  rec_device *devices = NULL;
  HF_TRY(hf_alloc(&devices, TOPO_MAX_NODES, sizeof *devices, "devices"));
  int n = prof_devices(p->topo, devices, TOPO_MAX_NODES);
  hf_status st = HF_OK;
  for (int i = 0; i < n && st == HF_OK; i++) {
    devices[i].machine_id = machine_id;
    st = db_device_put(d, &devices[i]);
  }
  free(devices);
  for (int i = 0; i < p->n_figure && st == HF_OK; i++) {
    rec_figure f = p->figure[i];
    f.machine_id = machine_id;
    st = db_figure_put(d, &f);
  }
  for (int i = 0; i < p->n_point && st == HF_OK; i++) {
    rec_kernel_point k = p->point[i];
    k.machine_id = machine_id;
    st = db_kernel_put(d, &k);
  }
  return st;
}

hf_status prof_store(db *d, const profile *p, const char *name, const char *facts, rec_machine *m) {
  *m = (rec_machine){.kind = MACHINE_MEASURED, .created_ns = hf_wall_ns()};
  snprintf(m->name, sizeof m->name, "%s", name);
  snprintf(m->facts_json, sizeof m->facts_json, "%s", facts);
  HF_TRY(db_begin(d));
  hf_status st = db_machine_put(d, m);
  if (st == HF_OK) st = put_rows(d, p, m->id);
  if (st == HF_OK) st = db_commit(d);
  if (st != HF_OK) db_rollback(d);
  return st;
}

hf_status prof_load(db *d, const rec_machine *m, prof_view *out) {
  prof_view v = {.machine = *m};
  hf_status st;
  HF_GO(fail, db_device_list(d, m->id, &v.device, &v.n_device));
  HF_GO(fail, db_figure_list(d, m->id, &v.figure, &v.n_figure));
  HF_GO(fail, db_kernel_list(d, m->id, &v.point, &v.n_point));
  HF_GO(fail, db_link_list(d, m->id, &v.link, &v.n_link));
  *out = v;
  return HF_OK;
fail:
  prof_view_free(&v);
  return st;
}

void prof_view_free(prof_view *v) {
  free(v->device);
  free(v->figure);
  free(v->point);
  free(v->link);
  *v = (prof_view){.n_device = 0};
}
