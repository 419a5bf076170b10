const MAX_KNOWN = { names: 512, characters: 64 };

/**
 * `make`, which depends on nothing but a name as it is written, of a header or a method: programs send the same few again and again, and what is known of those
 * is remembered.
 */
export function byName<Value extends object | boolean>(make: (name: string) => Value): (name: string) => Value {
  const known = new Map<string, Value>();
  return (name) => {
    const found = known.get(name);
    if (found !== undefined) return found;
    const made = make(name);
    if (name.length <= MAX_KNOWN.characters) {
      if (known.size >= MAX_KNOWN.names) known.clear();
      known.set(name, made);
    }
    return made;
  };
}
