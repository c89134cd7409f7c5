// What belongs to every page: pictures beside the grids that are fetched again, and the phone's menu.
const PICTURES = ".vs-query img";
const MENU_COVERS_PAGE = "(max-width: 768px)"; // Streamlit's own limit

const watched = new WeakSet();

function pictureFailed(event) {
  const image = event.target;
  if (!(image instanceof HTMLImageElement) || !image.matches(PICTURES) || watched.has(image)) return;
  watched.add(image);
  watchPicture(image, (text) => (image.parentElement.dataset.state = text))();
}

function closeMenu(event) {
  if (!event.target.closest?.('[data-testid="stSidebarNavLink"]') || !matchMedia(MENU_COVERS_PAGE).matches) return;
  // After Streamlit has seen the click.
  setTimeout(() => document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click());
}

export default function () {
  if (document.documentElement.dataset.vsFrame) return;
  document.documentElement.dataset.vsFrame = "on";
  document.addEventListener("error", pictureFailed, true);
  document.addEventListener("click", closeMenu, true);
}
