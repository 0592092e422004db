// Chats and their files, kept in this browser (IndexedDB), or in memory where it has no such place.

const memory = { chats: new Map(), media: new Map() };
let opening = null;

function open() {
  opening ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open("mlx-smolvlm", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("chats", { keyPath: "id" });
        request.result.createObjectStore("media", { keyPath: "id" });
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = request.onblocked = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opening;
}

async function run(kind, mode, act, instead) {
  const database = await open();
  if (!database) return instead(memory[kind]);
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(kind, mode);
    const request = act(transaction.objectStore(kind));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error || new Error("storage failed"));
  });
}

export const store = {
  isKept: async () => Boolean(await open()),
  all: () => run("chats", "readonly", (chats) => chats.getAll(), (map) => [...map.values()].map((chat) => structuredClone(chat))),
  put: (kind, value) => run(kind, "readwrite", (place) => place.put(value), (map) => map.set(value.id, structuredClone(value))),
  get: (kind, id) => run(kind, "readonly", (place) => place.get(id), (map) => map.get(id)),
  remove: (kind, id) => run(kind, "readwrite", (place) => place.delete(id), (map) => map.delete(id)),
  clear: (kind) => run(kind, "readwrite", (place) => place.clear(), (map) => map.clear()),
};
