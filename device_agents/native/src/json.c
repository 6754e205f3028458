/* JSON, read into a tree and written as ASCII. Every read is checked against the end of the text. */
#include "agent.h"

#define DEPTH_LIMIT 64

typedef struct {
  const char *at, *end;
  const char *problem;
} Reader;

static Json *value_at(Reader *reader, int depth);

static void skip_space(Reader *reader) {
  while (reader->at < reader->end &&
         (*reader->at == ' ' || *reader->at == '\t' || *reader->at == '\n' || *reader->at == '\r'))
    reader->at++;
}

static bool literal(Reader *reader, const char *word) {
  size_t size = strlen(word);
  if ((size_t)(reader->end - reader->at) < size || memcmp(reader->at, word, size) != 0) return false;
  reader->at += size;
  return true;
}

static void *wrong(Reader *reader, const char *problem) {
  if (!reader->problem) reader->problem = problem;
  return NULL;
}

static int hex4(Reader *reader) {
  int value = 0;
  if (reader->end - reader->at < 4) return -1;
  for (int i = 0; i < 4; i++) {
    char c = *reader->at++;
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

static size_t put_utf8(char *out, unsigned code) {
  if (code < 0x80) return out[0] = (char)code, 1;
  if (code < 0x800) return out[0] = (char)(0xC0 | code >> 6), out[1] = (char)(0x80 | (code & 63)), 2;
  if (code < 0x10000) {
    out[0] = (char)(0xE0 | code >> 12), out[1] = (char)(0x80 | (code >> 6 & 63)), out[2] = (char)(0x80 | (code & 63));
    return 3;
  }
  out[0] = (char)(0xF0 | code >> 18), out[1] = (char)(0x80 | (code >> 12 & 63));
  out[2] = (char)(0x80 | (code >> 6 & 63)), out[3] = (char)(0x80 | (code & 63));
  return 4;
}

/* Decodes what follows the opening quote. An escape is never shorter than the bytes that it stands for. */
static char *string_at(Reader *reader, size_t *size) {
  const char *close = reader->at;
  while (close < reader->end && *close != '"') close += *close == '\\' ? 2 : 1;
  if (close >= reader->end) return wrong(reader, "a string that does not end");
  char *out = take((size_t)(close - reader->at) + 1), *to = out;
  while (reader->at < reader->end && *reader->at != '"') {
    unsigned char c = (unsigned char)*reader->at++;
    if (c < 0x20) return wrong(reader, "a control character in a string");
    if (c != '\\') {
      *to++ = (char)c;
      continue;
    }
    if (reader->at >= reader->end) return wrong(reader, "a string that does not end");
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char escape = *reader->at++;
    const char *found = escape ? strchr(escapes, escape) : NULL;
    if (found) {
      *to++ = meant[found - escapes];
      continue;
    }
    int code = escape == 'u' ? hex4(reader) : -1;
    if (code < 0) return wrong(reader, "an escape that is none");
    if (code >= 0xD800 && code < 0xDC00 && reader->end - reader->at >= 6 && reader->at[0] == '\\' &&
        reader->at[1] == 'u') {
      Reader ahead = *reader;
      ahead.at += 2;
      int low = hex4(&ahead);
      if (low >= 0xDC00 && low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        reader->at = ahead.at;
      }
    }
    to += put_utf8(to, code >= 0xD800 && code < 0xE000 ? 0xFFFD : (unsigned)code);
  }
  if (reader->at >= reader->end) return wrong(reader, "a string that does not end");
  reader->at++;
  *to = 0;
  *size = (size_t)(to - out);
  return out;
}

static bool digits(Reader *reader) {
  const char *begin = reader->at;
  while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') reader->at++;
  return reader->at > begin;
}

static Json *number_at(Reader *reader, Json *value) {
  const char *begin = reader->at;
  value->type = JSON_NUMBER;
  value->integer = true;
  if (*reader->at == '-') reader->at++;
  bool zero = reader->at < reader->end && *reader->at == '0';
  const char *whole = reader->at;
  if (!digits(reader) || (zero && reader->at - whole > 1)) return wrong(reader, "a number that is none");
  if (reader->at < reader->end && *reader->at == '.') {
    reader->at++;
    value->integer = false;
    if (!digits(reader)) return wrong(reader, "a number that is none");
  }
  if (reader->at < reader->end && (*reader->at == 'e' || *reader->at == 'E')) {
    reader->at++;
    value->integer = false;
    if (reader->at < reader->end && (*reader->at == '+' || *reader->at == '-')) reader->at++;
    if (!digits(reader)) return wrong(reader, "a number that is none");
  }
  value->size = (size_t)(reader->at - begin);
  value->text = copy_of(begin, value->size);
  value->number = strtod(value->text, NULL);
  return value;
}

static Json *members_at(Reader *reader, Json *value, char close, int depth) {
  Json **link = &value->first;
  value->type = close == '}' ? JSON_OBJECT : JSON_ARRAY;
  reader->at++;
  skip_space(reader);
  if (reader->at < reader->end && *reader->at == close) return reader->at++, value;
  for (;;) {
    char *key = NULL;
    if (close == '}') {
      size_t size;
      skip_space(reader);
      if (reader->at >= reader->end || *reader->at != '"') return wrong(reader, "a member without a name");
      reader->at++;
      if (!(key = string_at(reader, &size))) return NULL;
      if (strlen(key) != size) return wrong(reader, "a member whose name holds NUL");
      skip_space(reader);
      if (!literal(reader, ":")) return wrong(reader, "a member without a value");
    }
    Json *item = value_at(reader, depth + 1);
    if (!item) return NULL;
    item->key = key;
    *link = item;
    link = &item->next;
    value->count++;
    skip_space(reader);
    if (literal(reader, ",")) continue;
    if (reader->at < reader->end && *reader->at == close) return reader->at++, value;
    return wrong(reader, "something between two values that does not belong there");
  }
}

static Json *value_at(Reader *reader, int depth) {
  if (depth > DEPTH_LIMIT) return wrong(reader, "deeper nesting than is read");
  skip_space(reader);
  if (reader->at >= reader->end) return wrong(reader, "an end where a value is missing");
  Json *value = take(sizeof *value);
  switch (*reader->at) {
    case '{': return members_at(reader, value, '}', depth);
    case '[': return members_at(reader, value, ']', depth);
    case '"':
      reader->at++;
      value->type = JSON_STRING;
      if (!(value->text = string_at(reader, &value->size))) return NULL;
      value->plain = strlen(value->text) == value->size;
      return value;
    case 't': value->truth = true; /* fall through */
    case 'f':
      value->type = JSON_BOOL;
      return literal(reader, value->truth ? "true" : "false") ? value : wrong(reader, "a word that is no value");
    case 'n': return literal(reader, "null") ? value : wrong(reader, "a word that is no value");
    default:
      if (*reader->at == '-' || (*reader->at >= '0' && *reader->at <= '9')) return number_at(reader, value);
      return wrong(reader, "a character that begins no value");
  }
}

/* Returns the tree, or NULL and what is wrong. */
Json *json_parse(const char *text, size_t size, const char **problem) {
  Reader reader = {text, text + size, NULL};
  Json *value = value_at(&reader, 0);
  if (value) {
    skip_space(&reader);
    if (reader.at != reader.end) value = wrong(&reader, "something after its end");
  }
  *problem = reader.problem;
  return value;
}

void json_free(Json *value) {
  while (value) {
    Json *next = value->next;
    json_free(value->first);
    free((char *)value->text);
    free((char *)value->key);
    free(value);
    value = next;
  }
}

const Json *member(const Json *object, const char *name) {
  const Json *found = NULL; /* of two members of one name the last counts, as in Python */
  if (object && object->type == JSON_OBJECT)
    for (const Json *item = object->first; item; item = item->next)
      if (strcmp(item->key, name) == 0) found = item;
  return found;
}

bool is_null(const Json *value) { return !value || value->type == JSON_NULL; }

const char *string_or(const Json *value, const char *otherwise) {
  return value && value->type == JSON_STRING ? value->text : otherwise;
}

double number_or(const Json *value, double otherwise) {
  return value && value->type == JSON_NUMBER ? value->number : otherwise;
}

bool uint_of(const Json *value, uint64_t *result) {
  if (!value || value->type != JSON_NUMBER || !value->integer || *value->text == '-') return false;
  uint64_t sum = 0;
  for (const char *at = value->text; *at; at++) {
    uint64_t digit = (uint64_t)(*at - '0');
    if (sum > (UINT64_MAX - digit) / 10) return false;
    sum = sum * 10 + digit;
  }
  *result = sum;
  return true;
}

bool int_in(const Json *value, int64_t low, int64_t high, int64_t *result) {
  uint64_t size;
  if (!value || value->type != JSON_NUMBER || !value->integer) return false;
  bool negative = *value->text == '-';
  Json magnitude = *value;
  magnitude.text += negative;
  if (!uint_of(&magnitude, &size) || size > INT64_MAX) return false;
  *result = negative ? -(int64_t)size : (int64_t)size;
  return *result >= low && *result <= high;
}

/* Reads one character of UTF-8; what is not UTF-8 becomes U+FFFD, one byte at a time. */
static unsigned next_code(const unsigned char **at, const unsigned char *end) {
  unsigned c = *(*at)++;
  int more = c >= 0xF0 && c < 0xF5 ? 3 : c >= 0xE0 ? 2 : c >= 0xC2 ? 1 : 0;
  if (c < 0x80) return c;
  if (!more || c >= 0xF5 || end - *at < more) return 0xFFFD;
  unsigned code = c & (0x3Fu >> more);
  for (int i = 0; i < more; i++) {
    if (((*at)[i] & 0xC0) != 0x80) return 0xFFFD;
    code = code << 6 | ((*at)[i] & 0x3F);
  }
  if (code < (more == 2   ? 0x800u
              : more == 3 ? 0x10000u
                          : 0x80u) ||
      (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF)
    return 0xFFFD;
  *at += more;
  return code;
}

void add_quoted(Text *text, const char *string, size_t size) {
  const unsigned char *at = (const unsigned char *)string, *end = at + size;
  add(text, "\"");
  while (at < end) {
    unsigned code = next_code(&at, end);
    if (code == '"' || code == '\\') {
      char pair[2] = {'\\', (char)code};
      add_bytes(text, pair, 2);
    } else if (code == '\n' || code == '\t' || code == '\r') {
      add(text, code == '\n' ? "\\n" : code == '\t' ? "\\t" : "\\r");
    } else if (code >= 0x20 && code < 0x7F) {
      char one = (char)code;
      add_bytes(text, &one, 1);
    } else if (code < 0x10000) {
      addf(text, "\\u%04x", code);
    } else {
      addf(text, "\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF));
    }
  }
  add(text, "\"");
}

void add_string(Text *text, const char *string) {
  if (string) add_quoted(text, string, strlen(string));
  else add(text, "null");
}

void add_json(Text *text, const Json *value) {
  if (is_null(value)) {
    add(text, "null");
  } else if (value->type == JSON_BOOL) {
    add(text, value->truth ? "true" : "false");
  } else if (value->type == JSON_NUMBER) {
    add(text, value->text);
  } else if (value->type == JSON_STRING) {
    add_quoted(text, value->text, value->size);
  } else {
    add(text, value->type == JSON_ARRAY ? "[" : "{");
    for (const Json *item = value->first; item; item = item->next) {
      if (item != value->first) add(text, ",");
      if (value->type == JSON_OBJECT) add_string(text, item->key), add(text, ":");
      add_json(text, item);
    }
    add(text, value->type == JSON_ARRAY ? "]" : "}");
  }
}

void add_int_or_null(Text *text, int64_t value, bool known) {
  if (known) addf(text, "%lld", (long long)value);
  else add(text, "null");
}

/* Puts a comma where one is due: not at the beginning of an object or a list. */
void comma(Text *text) {
  if (text->size && !strchr("{[,", text->data[text->size - 1])) add(text, ",");
}

void put(Text *text, const char *name, const char *json) {
  comma(text);
  add_string(text, name);
  add(text, ":");
  add(text, json);
}

void put_string(Text *text, const char *name, const char *value) {
  put(text, name, "");
  add_string(text, value);
}

void put_int(Text *text, const char *name, int64_t value) {
  put(text, name, "");
  addf(text, "%lld", (long long)value);
}

void put_known(Text *text, const char *name, int64_t value, bool known) {
  put(text, name, "");
  add_int_or_null(text, value, known);
}

void put_bool(Text *text, const char *name, bool value) { put(text, name, value ? "true" : "false"); }
