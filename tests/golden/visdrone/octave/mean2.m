function m = mean2(a)
% MATLAB's Image Processing Toolbox has this; Octave without packages has not.
m = mean(a(:));
end
