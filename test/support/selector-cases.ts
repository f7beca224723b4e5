/** Selectors and numbers of list options, and what kube-apiserver makes of them; the differential test puts each to a real one. */

/** Field selectors, and the `metadata.name` each demands; undefined where the server cannot parse it. */
export const FIELD_SELECTORS: readonly (readonly [string, string | undefined])[] = [
  ['', ''],
  ['metadata.name=a', 'a'],
  ['metadata.name==a', 'a'],
  ['metadata.name!=a', ''],
  ['metadata.name===a', undefined],
  ['metadata.name=', ''],
  ['metadata.name', undefined],
  ['metadata.name=a,rubbish', undefined],
  ['=a', ''],
  [',,metadata.name=a,', 'a'],
  ['metadata.name=b,metadata.name=a', 'a'],
  ['metadata.name==z,metadata.name=a', 'z'],
  ['metadata.name!=a,metadata.name=b', 'b'],
  ['a!b=c,metadata.name=d', 'd'],
  ['metadata.name=a!b', 'a!b'],
  ['metadata.name =a', ''],
  ['Metadata.name=a', ''],
  ['metadata\\.name=a', ''],
  ['metadata.name=a\\,b', 'a,b'],
  ['metadata.name=a\\=b', 'a=b'],
  ['metadata.name=a\\\\,b=c', 'a\\'],
  ['metadata.name=a\\b', undefined],
  ['metadata.name=a\\', undefined],
  ['metadata.name=a\nb', 'a\nb'],
  ['metadata.name=\ufffd,metadata.name=\u{1f600}', '\ufffd'],
]

/** Label selectors that the server can parse. */
export const LABEL_SELECTORS = [
  ...['', 'a', '!a', '! a', 'a,b', 'a=b', 'a==b', 'a!=b', 'a=', 'a=,b=c', ' a = b ', 'a\t=b'],
  ...['a in (b,c)', 'a notin (b)', 'a in(b)', 'a in ()', 'a in (,)', 'a in (b,,c)', 'a in (b,)'],
  ...['a in (,b)', 'a in (,,,)', 'in in (in)', 'in=notin', 'a in (in,notin)', 'notin', 'a>1'],
  ...['a < 1', 'x.io/a=b', 'a.b_c-d=e.f', `${'a'.repeat(63)}=b`, 'a>9223372036854775807'],
  ...['a=b\0', 'a\0=b\0', 'a=b\0\0)', '\0)'],
]

/** And those that it cannot. */
export const BROKEN_LABEL_SELECTORS = [
  ...[',', 'a,', ',a', 'a,,b', '!', '!!a', '!a=b', 'a===b', 'a===', '=b', 'a b', 'a!b', 'a=!b'],
  ...['a in b', 'a in (b', 'a in (b))', 'a in (b)c', 'a in (b c)', 'a in (b=c)', 'a IN (b)'],
  ...['a in (,,)', 'a in (b,,)', 'a>x', 'a>=1', 'a>1.5', 'a>-1', 'a>', 'a>9223372036854775808'],
  ...['x/y/a=b', '/a=b', 'x.io/=b', 'X.io/a=b', 'a=b/c', 'a=-b', 'a=b-', '-a=b', '(a)', 'a)'],
  ...[`${'a'.repeat(64)}=b`, `a=${'b'.repeat(64)}`, 'ö=b', 'a=b c', 'a\v=b', 'a\u00a0=b'],
]

/** What it reads as a number. */
export const NUMBERS = ['0', '-1', '+5', '007', '9223372036854775807', '-9223372036854775808']

/** And what it does not. */
export const BROKEN_NUMBERS = ['', '-', ' 1', '1.5', '1e3', '0x10', '1_0', '9223372036854775808']
