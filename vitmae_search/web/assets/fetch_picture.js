// What became of a picture. Only the server knows that a photo is not on disk; while the server does not answer,
// the picture is fetched again and again.
const LONGEST_WAIT = 30_000; // milliseconds between two tries
const PICTURE_STATES = { shown: "", gone: "Not on disk", away: "Not loaded. Trying again…", unreached: "Its storage cannot be reached now" };

// The state of a picture that did not load. Its address is asked once more, as a failed image says no reason.
async function failedState(address) {
  const status = await fetch(address).then((answer) => answer.status, () => 0);
  if (status === 404 || status === 410) return PICTURE_STATES.gone;
  return status === 502 ? PICTURE_STATES.unreached : PICTURE_STATES.away;
}

// Calls say(text) with one of the texts above. Returns what handles a failure that happened already.
function watchPicture(image, say) {
  let wait = 1_000;
  const failed = async () => {
    if (!image.isConnected) return;
    const state = await failedState(image.src);
    say(state);
    if (state === PICTURE_STATES.gone) return;
    setTimeout(() => image.isConnected && (image.src = image.src), wait);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  };
  image.onerror = failed;
  image.onload = () => say(PICTURE_STATES.shown);
  return failed;
}
