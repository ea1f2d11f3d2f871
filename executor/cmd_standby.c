/* cmd_standby.c: --standby of the commands that serve: opened, and told of. */
#include <stdio.h>

#include "executor/commands.h"

hf_status standby_as_asked(const standby_spec *s, engine *e, standby **out) {
  *out = NULL;
  if (!s->on) return HF_OK;
  return hf_note(standby_open(e, s->path, s->slots, out), "--standby");
}

void standby_json(standby *s, json *to) {
  standby_stats t;
  standby_get_stats(s, &t);
  json *o = json_add_object(to, "standby");
  json_add_int(o, "pages", t.slots);
  json_add_int(o, "mirrored_tokens", t.mirrored_tokens);
  json_add_int(o, "mirrored_bytes", t.mirrored_bytes);
  json_add_num(o, "copying_s", (double)t.busy_ns * 1e-9);
  json_add_int(o, "parked_tokens", t.parked_tokens);
  json_add_int(o, "restored_tokens", t.restored_tokens);
  json_add_int(o, "left_out_pages", t.left_out_pages);
  json_add_int(o, "pages_lost", t.slots_lost);
  if (t.failed[0]) json_add_str(o, "failed", t.failed);
}

void standby_print(standby *s) {
  standby_stats t;
  standby_get_stats(s, &t);
  printf("  KV mirror: %lld tokens (%.3g MB) copied beside the steps, %lld parked, %lld restored", (long long)t.mirrored_tokens,
         (double)t.mirrored_bytes * 1e-6, (long long)t.parked_tokens, (long long)t.restored_tokens);
  if (t.left_out_pages > 0) printf("; it had no room for %lld pages", (long long)t.left_out_pages);
  puts("");
}
