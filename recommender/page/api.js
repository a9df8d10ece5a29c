// The service's answers as objects; every failure is an Error with words for a person.

const KEY = "tierwise-api-key";

export class KeyWanted extends Error {}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

export async function ask(path, { query = {}, body = null, signal } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== "") url.searchParams.set(name, value);
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers["x-api-key"] = key;
  if (body !== null) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(url, { method: body === null ? "GET" : "POST", headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer. Is it still running?");
  }
  const content = await response.json().catch(() => null);
  if (response.status === 401) throw new KeyWanted(content?.detail);
  if (!response.ok) throw new Error(content?.detail ?? `The service answered ${response.status}.`);
  return content;
}
