// A box that is dragged on the picture becomes the text of the field "region", and what is typed
// there becomes the box. Gradio has no component for boxes.
(() => {
  const image = () => document.querySelector('#picture img');
  const field = () => document.querySelector('#region :is(input, textarea)');
  const box = document.createElement('div');
  box.id = 'region-box';
  let start = null;

  // Where the pixels of the picture are on the page: centred in their element (object-fit).
  const place = (element) => {
    const outer = element.getBoundingClientRect();
    const scale = Math.min(
      outer.width / element.naturalWidth,
      outer.height / element.naturalHeight,
    );
    const width = element.naturalWidth * scale;
    const height = element.naturalHeight * scale;
    const left = outer.left + (outer.width - width) / 2;
    const top = outer.top + (outer.height - height) / 2;
    return { left, top, scale };
  };

  const pixel = (event) => {
    const element = image();
    const { left, top, scale } = place(element);
    const inside = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
    return [
      inside((event.clientX - left) / scale, element.naturalWidth),
      inside((event.clientY - top) / scale, element.naturalHeight),
    ];
  };

  const show = () => {
    const element = image();
    const numbers = field()?.value.split(',').map(Number) ?? [];
    const isBox = numbers.length === 4 && numbers.every(Number.isFinite);
    if (!element || !isBox) {
      box.remove();
      return;
    }
    const frame = element.parentElement;
    frame.style.position = 'relative';
    const outer = frame.getBoundingClientRect();
    const { left, top, scale } = place(element);
    const [x1, y1, x2, y2] = numbers;
    box.style.left = `${left - outer.left + x1 * scale}px`;
    box.style.top = `${top - outer.top + y1 * scale}px`;
    box.style.width = `${Math.max(0, (x2 - x1) * scale)}px`;
    box.style.height = `${Math.max(0, (y2 - y1) * scale)}px`;
    frame.append(box);
  };

  const write = (end) => {
    const [x, y] = start;
    const corners = [Math.min(x, end[0]), Math.min(y, end[1])];
    corners.push(Math.max(x, end[0]), Math.max(y, end[1]));
    field().value = corners.join(',');
    field().dispatchEvent(new Event('input', { bubbles: true }));
  };

  document.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || !field() || event.target !== image()) return;
    event.preventDefault();
    start = pixel(event);
  });
  document.addEventListener('pointermove', (event) => {
    if (start) write(pixel(event));
  });
  document.addEventListener('pointerup', () => (start = null));
  document.addEventListener('pointercancel', () => (start = null));
  document.addEventListener('dragstart', (event) => {
    if (field() && event.target === image()) event.preventDefault();
  });
  document.addEventListener('input', (event) => event.target === field() && show());
  // A picture that has come, or a field that has gone.
  document.addEventListener('load', (event) => event.target === image() && show(), true);
  addEventListener('resize', show);
  new MutationObserver(() => field() || box.remove()).observe(document, {
    childList: true,
    subtree: true,
  });
})();
