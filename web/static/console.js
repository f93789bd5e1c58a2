// The live state of a page: says whether the stream runs, and stops updates while paused. Loaded before htmx.
(() => {
  const live = document.getElementById('live')
  const text = document.getElementById('live-text')
  const pause = document.getElementById('pause')
  if (!live) return
  live.hidden = false
  let state = 'connecting', paused = false, last = null

  const clock = t => t.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' })
  function show() {
    const shown = paused ? 'paused' : state
    const words = {
      connecting: 'Connecting',
      live: 'Live',
      reconnecting: last ? `Reconnecting, as of ${clock(last)}` : 'Reconnecting',
      paused: last ? `Paused, as of ${clock(last)}` : 'Paused',
    }
    live.dataset.state = shown
    if (text.textContent !== words[shown]) text.textContent = words[shown]
  }
  function become(next) { state = next; show() }

  document.addEventListener('htmx:sse:after:connection', () => become('live'))
  document.addEventListener('htmx:sse:error', () => become('reconnecting'))
  document.addEventListener('htmx:sse:close', () => become('reconnecting'))
  // The first attempt is the page's own; every further one means that the stream broke.
  document.addEventListener('htmx:sse:before:connection', () => { if (state === 'live') become('reconnecting') })
  document.addEventListener('htmx:sse:before:message', event => {
    if (paused) event.preventDefault()
    else last = new Date()
  })

  function toggle() {
    paused = !paused
    // What was skipped while paused is gone from the stream; the page itself has it all.
    if (!paused) { location.reload(); return }
    pause.setAttribute('aria-pressed', 'true')
    pause.textContent = 'Resume'
    show()
  }
  pause.addEventListener('click', toggle)
  document.addEventListener('keydown', event => {
    if (event.key !== 'p' || event.ctrlKey || event.metaKey || event.altKey) return
    if (event.target.closest('input, textarea, select, [contenteditable]')) return
    toggle()
  })
  show()
})()
