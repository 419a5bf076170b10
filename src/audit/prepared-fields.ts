/** The fields of an entry that are in their canonical form already (RFC 8785). `preparedFields` makes them. */
export class PreparedFields {
  readonly canonical: string;

  constructor(canonical: string) {
    this.canonical = canonical;
  }
}
