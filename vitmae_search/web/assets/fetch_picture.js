// What became of a picture. Only the server knows that a photo is not on disk; while the server does not answer,
// the picture is fetched again and again.
const LONGEST_WAIT = 30_000; // milliseconds between two tries
const PICTURE_STATES = { shown: "", gone: "Not on disk", away: "Not loaded. Trying again…", unreached: "Its storage cannot be reached now" };

// Calls say(text) with one of the texts above. Returns what handles a failure that happened already.
function watchPicture(image, say) {
  let wait = 1_000;
  const failed = async () => {
    if (!image.isConnected) return;
    const status = await fetch(image.src).then((answer) => answer.status, () => 0);
    if (status === 404 || status === 410) return say(PICTURE_STATES.gone);
    say(status === 502 ? PICTURE_STATES.unreached : PICTURE_STATES.away);
    setTimeout(() => image.isConnected && (image.src = image.src), wait);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  };
  image.onerror = failed;
  image.onload = () => say(PICTURE_STATES.shown);
  return failed;
}
