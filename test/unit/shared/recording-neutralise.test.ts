/** What a viewer's terminal gets to see of a session's output, case by case. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  MAX_REPEAT,
  MAX_SEQUENCE_CHARACTERS,
  MAX_STRING_CHARACTERS,
  createNeutraliser,
} from '../../../shared/recording/neutralise.ts'

const ESC = '\u001b'

function safe(text: string): string {
  return createNeutraliser().text(text)
}

describe('neutralised output', () => {
  it('keeps text, and what programs draw with', () => {
    const kept = [
      'plain text, Grüße, 漢字, 👩🏽, ❤️\r\n\tnext\b',
      `${ESC}[1;38:2:255:0:10;48;5;123mred${ESC}[0m${ESC}[m`,
      `${ESC}[H${ESC}[2J${ESC}[12;40H${ESC}[3A${ESC}[K${ESC}[1K${ESC}[5C${ESC}[4G${ESC}[2d`,
      `${ESC}[2L${ESC}[3M${ESC}[4@${ESC}[5P${ESC}[6X${ESC}[7S${ESC}[8T`,
      `${ESC}[2;20r${ESC}[r${ESC}[s${ESC}[u${ESC}7${ESC}8${ESC}D${ESC}E${ESC}M${ESC}H${ESC}[3g`,
      `${ESC}[?1049h${ESC}[?25l${ESC}[?7h${ESC}[?1049l${ESC}[?25h${ESC}[4h${ESC}[4l${ESC}[?2J`,
      `${ESC}(0lqk${ESC}(B${ESC})0\u000elqk\u000f`,
      `a${ESC}[20b`,
    ]
    for (const text of kept) expect(safe(text), JSON.stringify(text)).to.equal(text)
  })

  it('drops what acts on more than the screen, or makes a terminal answer', () => {
    const dropped = [
      `${ESC}]0;title\u0007`,
      `${ESC}]2;title${ESC}\\`,
      `${ESC}]52;c;cm0gLXJmIC8K\u0007`,
      `${ESC}]8;;https://evil.example\u0007`,
      `${ESC}]4;1;?\u0007${ESC}]10;?\u0007${ESC}]9;note\u0007${ESC}]777;notify;a;b\u0007`,
      `${ESC}]1337;File=name=eA==:AAAA\u0007${ESC}]1337;RequestUpload=format=tgz\u0007`,
      `${ESC}P$q"p${ESC}\\${ESC}P+q544e${ESC}\\${ESC}Ptmux;x${ESC}\\`,
      `${ESC}_Gf=24;AAAA${ESC}\\${ESC}^pm${ESC}\\${ESC}Xsos${ESC}\\`,
      `${ESC}[5n${ESC}[6n${ESC}[?6n${ESC}[c${ESC}[>c${ESC}[=c${ESC}[>q${ESC}[x${ESC}Z\u0005`,
      `${ESC}[18t${ESC}[21t${ESC}[8;9;9t${ESC}[22;0;0t${ESC}[?1$p${ESC}[4$p${ESC}[1;1;1;1;1;1*y`,
      `${ESC}[?1000h${ESC}[?1003h${ESC}[?1006h${ESC}[?2004h${ESC}[?1h${ESC}[?1004h${ESC}[?2026h`,
      `${ESC}[>4;2m${ESC}[>1u${ESC}[=1;1u${ESC}[<u${ESC}=${ESC}>${ESC}[2h${ESC}[20h${ESC}[12h`,
      `${ESC}[!p${ESC}[?3h${ESC}[?5h${ESC}[61"p${ESC}[2 q${ESC}#8${ESC}#3${ESC}%@${ESC}%G${ESC} F`,
      `${ESC}[3J${ESC}[?3J${ESC}[0;3J${ESC}[?3:1J${ESC}[5;10s${ESC}[1;2;3;4;5T${ESC}[1:2A`,
      `${ESC}n${ESC}o${ESC}|${ESC}}${ESC}~${ESC}N${ESC}O${ESC}(A${ESC}*0${ESC}+0${ESC}(`.slice(
        0,
        -2,
      ),
      `${ESC}[i${ESC}[4i${ESC}[5i${ESC}[?5i${ESC}[1q${ESC}[1z${ESC}[1;1w`,
      '\u0000\u0001\u0007\u007f\u0011\u0013',
      '\u009c\u0080\u0099',
      '\u009d0;title\u009c\u009b6n\u00901$r\u009c',
    ]
    for (const text of dropped) expect(safe(`a${text}b`), JSON.stringify(text)).to.equal('ab')
  })

  it('lets nothing be concealed by a colour code, and takes no colour for one', () => {
    expect(safe(`${ESC}[8mpassword`)).to.equal('password')
    expect(safe(`${ESC}[1;8;31m${ESC}[08m${ESC}[8:1m`)).to.equal(`${ESC}[1;31m`)
    for (const kept of ['38;5;8', '48;2;8;8;8;1', '0', '', ';1', '38:5:8', '58;5;8;4'])
      expect(safe(`${ESC}[${kept}m`)).to.equal(`${ESC}[${kept}m`)
    expect(safe(`${ESC}[38;5;8;8;1m${ESC}[38;8m`)).to.equal(`${ESC}[38;5;8;1m${ESC}[38m`)
  })

  it('keeps of several modes the allowed ones', () => {
    expect(safe(`${ESC}[?1000;25;2004l`)).to.equal(`${ESC}[?25l`)
  })

  it('makes a full reset a clear, and feeds lines for other line ends', () => {
    expect(safe(`${ESC}c`)).to.equal(`${ESC}[0m${ESC}(B\u000f${ESC}[r${ESC}[H${ESC}[2J`)
    expect(safe('a\vb\fc')).to.equal('a\nb\nc')
  })

  it('reads eight-bit controls as what they are, in their harmless form', () => {
    expect(safe('\u009b31mred\u0085')).to.equal(`${ESC}[31mred${ESC}E`)
  })

  it('bounds repetitions and parameters', () => {
    expect(safe(`a${ESC}[999999999b`)).to.equal(`a${ESC}[${MAX_REPEAT}b`)
    expect(safe(`${ESC}[4294967297L`)).to.equal(`${ESC}[9999L`)
    expect(safe(`${ESC}[${'1;'.repeat(40)}m`)).to.equal('')
  })

  it('shows characters that hide or reorder others', () => {
    expect(safe('a\u202eb\u2066c\u200bd\u00ade\ufefff\u{e0041}g\u3164h\u2028')).to.equal(
      'a\\u{202e}b\\u{2066}c\\u{200b}d\\u{ad}e\\u{feff}f\\u{e0041}g\\u{3164}h\\u{2028}',
    )
    expect(safe('a\ud800b')).to.equal('a\ufffdb')
  })

  it('lets no unfinished sequence swallow the rest', () => {
    expect(safe(`${ESC}]0;never ends${'x'.repeat(MAX_STRING_CHARACTERS)}seen`)).to.match(/seen$/)
    expect(safe(`${ESC}[${'1'.repeat(MAX_SEQUENCE_CHARACTERS)}seen`)).to.equal('seen')
    expect(safe(`${ESC}(${'('.repeat(MAX_SEQUENCE_CHARACTERS)}seen`)).to.match(/seen$/)
    for (const cancel of ['\u0018', '\u001a']) {
      expect(safe(`${ESC}]0;title${cancel}seen`)).to.equal('seen')
      expect(safe(`${ESC}[1;2${cancel}seen`)).to.equal('seen')
      expect(safe(`${ESC}P1$r${cancel}seen`)).to.equal('seen')
    }
    expect(safe(`${ESC}]0;title${ESC}[31mseen`)).to.equal(`${ESC}[31mseen`)
    expect(safe(`${ESC}[1;${ESC}[31mseen`)).to.equal(`${ESC}[31mseen`)
    expect(safe(`${ESC}[1ü`)).to.equal('ü')
  })

  it('carries controls out within a sequence, as terminals do', () => {
    expect(safe(`${ESC}[3\r\n1m`)).to.equal(`\r\n${ESC}[31m`)
    expect(safe(`${ESC}\u0007\n[31m`)).to.equal(`\n${ESC}[31m`)
  })

  it('brings the terminal back', () => {
    const plain = createNeutraliser()
    plain.text('text')
    expect(plain.reset()).to.equal(`${ESC}[4l${ESC}[?7h${ESC}[?25h${ESC}(B\u000f${ESC}[0m`)
    const editor = createNeutraliser()
    editor.text(`${ESC}[?1049h${ESC}[2;3r`)
    expect(editor.reset()).to.contain(`${ESC}[?1049l${ESC}[?6l${ESC}[r`)
  })
})
