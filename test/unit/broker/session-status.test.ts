/** What a recording keeps of the status by which a command ends. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { readStatus } from '../../../broker/sessions/status.ts'

const SECRET = 'hunter2-planted'

describe('the status of a command', () => {
  it('has no secret of the command that a runtime repeats', () => {
    const message = `exec failed: exec: "mysql --password ${SECRET}": executable file not found in $PATH`
    const status = { status: 'Failure', reason: 'InternalError', message }
    expect(readStatus(Buffer.from(JSON.stringify(status)))).to.deep.equal({
      ...{ status: 'Failure', reason: 'InternalError' },
      message: message.replace(SECRET, '*'.repeat(SECRET.length)),
    })
    const text = readStatus(Buffer.from(`no status: PGPASSWORD=${SECRET}`))
    expect(text.message).to.equal(`no status: PGPASSWORD=${'*'.repeat(SECRET.length)}`)
  })

  it('has none where it is cut', () => {
    const head = 'x'.repeat(1010)
    const { message } = readStatus(Buffer.from(`${head} token=${SECRET}`))
    expect(message).to.have.length(1024).and.not.to.contain('hunter2')
  })
})
