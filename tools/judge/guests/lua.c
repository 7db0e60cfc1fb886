/* Lua as a guest: runs the script that its first argument names, as `lua FILE` does. Built with the sources of crate
   lua-src and no part of lua.c. Its state is made once, in `start`, of which the judge keeps a snapshot (guest.h). */
#include <stdio.h>
#include <time.h>

#include "guest.h"

#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"

static int with_traceback(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (message == NULL) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, message, 1);
  return 1;
}

/* The sources of the crate leave it out. */
static int os_clock(lua_State *L) {
  lua_pushnumber(L, (lua_Number)clock() / CLOCKS_PER_SEC);
  return 1;
}

static int libraries(lua_State *L) {
  luaL_openlibs(L);
  lua_getglobal(L, "os");
  lua_pushcfunction(L, os_clock);
  lua_setfield(L, -2, "clock");
  lua_gc(L, LUA_GCGEN, 0, 0);
  return 0;
}

static lua_State *state;

void start(void) {
  state = luaL_newstate();
  if (state == NULL) return;
  lua_pushcfunction(state, libraries);
  if (lua_pcall(state, 0, 0, 0) != LUA_OK) state = NULL;
}

static int script(lua_State *L) {
  char **argv = lua_touserdata(L, 1);
  lua_newtable(L);
  for (int i = 1; argv[i]; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - 1);
  }
  lua_setglobal(L, "arg");
  lua_pushcfunction(L, with_traceback);
  int status = luaL_loadfile(L, argv[1]);
  if (status == LUA_OK) status = lua_pcall(L, 0, 0, -2);
  if (status != LUA_OK) {
    const char *message = lua_tostring(L, -1);
    fflush(stdout);
    fprintf(stderr, "lua: %s\n", message ? message : "error");
  }
  lua_pushboolean(L, status == LUA_OK);
  return 1;
}

int run(int argc, char **argv) {
  lua_State *L = state;
  if (argc < 2) return 2;
  if (L == NULL) return 1;
  lua_pushcfunction(L, script);
  lua_pushlightuserdata(L, argv);
  int status = lua_pcall(L, 1, 1, 0);
  int good = lua_toboolean(L, -1);
  lua_close(L);
  return status == LUA_OK && good ? 0 : 1;
}
