interface Window {
  readonly AsciinemaPlayer: typeof import('asciinema-player')
  readonly trustedTypes?: {
    createPolicy(name: string, rules: { createHTML(text: string): string }): unknown
  }
}
