/* Keeps a room that has no source yet a valid library. */
typedef int hf_room_is_not_empty;
